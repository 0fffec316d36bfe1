//! Compiles the BPF programs and generates their skeleton into `OUT_DIR`.

use std::env;
use std::error::Error;
use std::path::PathBuf;

use libbpf_cargo::SkeletonBuilder;

const SOURCE: &str = "bpf/blkiolat.bpf.c";

fn main() -> Result<(), Box<dyn Error>> {
    let skeleton = PathBuf::from(env::var("OUT_DIR")?).join("blkiolat.skel.rs");
    SkeletonBuilder::new()
        .source(SOURCE)
        // v3: 32-bit jumps and atomics; kernels without the latter get programs that use none.
        .clang_args(["-Wall", "-Wextra", "-Werror", "-O2", "-mcpu=v3"])
        .build_and_generate(&skeleton)
        .map_err(|error| {
            format!("cannot build {SOURCE} (clang 11 or newer is needed): {error:#}")
        })?;
    println!("cargo:rerun-if-changed=bpf");
    Ok(())
}
