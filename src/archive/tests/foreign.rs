//! What does not happen to the files of others.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

fn mkfifo(path: &Path) {
    rustix::fs::mknodat(
        rustix::fs::CWD,
        path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
}

#[test]
fn what_is_not_ours_is_refused_and_left_alone() {
    let dir = directory();
    let settings = settings(dir.path());
    let path = &settings.output.path;
    let victim = dir.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    let refused = |what: &str| {
        let error = Rig::new(settings.clone(), None).open().unwrap_err();
        assert!(!error.may_pass(), "{error}");
        assert!(error.to_string().contains(what), "{error}");
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    };
    symlink(&victim, path).unwrap();
    refused("a symbolic link");
    assert!(fs::symlink_metadata(path).unwrap().is_symlink());
    fs::remove_file(path).unwrap();

    fs::hard_link(&victim, path).unwrap();
    refused("hard links");
    fs::remove_file(path).unwrap();

    mkfifo(path);
    refused("a FIFO");
    fs::remove_file(path).unwrap();

    fs::create_dir(path).unwrap();
    refused("a directory");
    fs::remove_dir(path).unwrap();

    fs::write(path, "my notes").unwrap();
    refused("did not write");
    assert_eq!(fs::read_to_string(path).unwrap(), "my notes");
    fs::remove_file(path).unwrap();

    let lock = dir.path().join(".b.lock");
    symlink(&victim, &lock).unwrap();
    refused("a symbolic link");
    fs::remove_file(&lock).unwrap();
    mkfifo(&lock);
    refused("a FIFO");
    fs::remove_file(&lock).unwrap();

    Rig::opened(settings.clone()).write(1).unwrap();
    assert_eq!(read_all(path), [0]);
}

#[test]
fn a_dangling_link_is_not_followed_either() {
    let dir = directory();
    let settings = settings(dir.path());
    symlink(dir.path().join("elsewhere"), &settings.output.path).unwrap();
    assert!(Rig::new(settings, None).open().is_err());
    assert!(!dir.path().join("elsewhere").exists());
}

#[test]
fn a_link_put_in_the_place_of_the_active_file_is_not_followed() {
    let dir = directory();
    let path = dir.path().join("b.jsonl");
    let victim = dir.path().join("victim");
    fs::write(&victim, "{\"timestamp\":1}\n").unwrap();
    let mut rig = Rig::opened(settings(dir.path()));
    rig.write(1).unwrap();
    fs::rename(&path, dir.path().join("moved")).unwrap();
    symlink(&victim, &path).unwrap();
    let error = rig.write(1).unwrap_err();
    assert!(error.to_string().contains("a symbolic link"), "{error}");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "{\"timestamp\":1}\n");
    fs::remove_file(&path).unwrap();
    rig.recorder.flush().unwrap();
    assert_eq!(read_all(&path), [1]);
}

#[test]
fn foreign_files_under_our_names_are_neither_compressed_nor_removed() {
    let dir = directory();
    let mut settings = settings(dir.path());
    settings.retention.max_age = Duration::from_secs(1);
    let path = |name: &str| dir.path().join(name);
    fs::write(path("victim"), "precious").unwrap();
    symlink(path("victim"), path("b-20000101T000000.000Z.jsonl")).unwrap();
    mkfifo(&path("b-20000101T000001.000Z.jsonl"));
    fs::create_dir(path("b-20000101T000002.000Z.jsonl")).unwrap();
    symlink(path("victim"), path("b-20000101T000003.000Z.jsonl.gz")).unwrap();
    fs::create_dir(path("b-20000101T000004.000Z.jsonl.gz.tmp")).unwrap();
    symlink(path("victim"), path("b-20000101T000005.000Z.jsonl.gz.tmp")).unwrap();
    fs::write(path("b-20000101T000006.000Z.jsonl.bak"), "keep").unwrap();
    fs::write(path("a-20000101T000006.000Z.jsonl"), "keep").unwrap();
    let before = list(dir.path());
    let mut rig = Rig::opened(settings);
    rig.write(2).unwrap();
    rig.compress();
    rig.close();
    let after: Vec<_> = list(dir.path()).into_iter().filter(|name| name != "b.jsonl").collect();
    assert_eq!(after, before);
    assert_eq!(fs::read_to_string(path("victim")).unwrap(), "precious");
}

/// Found by fuzzing: where an archive could not be begun, what stood in its way was removed.
#[test]
fn what_is_in_the_way_of_an_archive_stays() {
    for kind in ["link", "fifo", "directory"] {
        let dir = directory();
        let partial = dir.path().join("b-20261122T154505.123Z.jsonl.gz.tmp");
        fs::write(dir.path().join("victim"), "precious").unwrap();
        match kind {
            "link" => symlink(dir.path().join("victim"), &partial).unwrap(),
            "fifo" => mkfifo(&partial),
            _ => fs::create_dir(&partial).unwrap(),
        }
        let mut rig = Rig::opened(settings(dir.path()));
        rig.write(1).unwrap();
        // The name's moment is taken, as by any other file of ours: this steps aside.
        rig.rotate().unwrap();
        assert!(dir.path().join("b-20261122T154505.124Z.jsonl").exists(), "{kind}");
        fs::rename(
            dir.path().join("b-20261122T154505.124Z.jsonl"),
            dir.path().join("b-20261122T154505.123Z.jsonl"),
        )
        .unwrap();
        let problems = rig.compress();
        assert!(matches!(problems[..], [(_, Problem::Io(_))]), "{kind}: {problems:?}");
        assert!(fs::symlink_metadata(&partial).is_ok(), "{kind}");
        assert_eq!(fs::read_to_string(dir.path().join("victim")).unwrap(), "precious");
    }
}

#[test]
fn a_link_swapped_in_for_a_segment_is_not_read() {
    let dir = directory();
    let mut rig = Rig::opened(settings(dir.path()));
    rig.write(1).unwrap();
    rig.rotate().unwrap();
    let segment = dir.path().join("b-20261122T154505.123Z.jsonl");
    fs::write(dir.path().join("secret"), "x".repeat(5000)).unwrap();
    fs::remove_file(&segment).unwrap();
    fs::hard_link(dir.path().join("secret"), &segment).unwrap();
    let problems = rig.compress();
    assert!(matches!(problems[..], [(_, Problem::Foreign)]), "{problems:?}");
    assert!(segment.exists());
}

#[test]
fn a_directory_for_everybody_is_still_usable() {
    let dir = directory();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    Rig::opened(settings(dir.path())).write(1).unwrap();
}

#[test]
fn arbitrary_names_in_the_directory_do_no_harm() {
    use std::os::unix::ffi::OsStrExt;
    let dir = directory();
    for name in
        [&b"b-\xff\xfe.jsonl"[..], b"b-", b"b-\n.jsonl.gz", b"b-20261122T154505.123Z.jsonl "]
    {
        fs::write(dir.path().join(OsStr::from_bytes(name)), "x").unwrap();
    }
    let mut rig = Rig::opened(settings(dir.path()));
    rig.write(2).unwrap();
    rig.rotate().unwrap();
    assert!(rig.compress().is_empty());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 7);
}

proptest::proptest! {
    /// Whatever is found at the output's path: it is either refused and untouched, or continued
    /// with everything in it that is not a torn line of ours.
    #[test]
    fn arbitrary_content_is_refused_or_continued(
        pieces in proptest::collection::vec(
            proptest::prop_oneof![
                proptest::prelude::Just(b"{\"timestamp\":1.5}\n".to_vec()),
                proptest::prelude::Just(b"{\"timestamp\":2.".to_vec()),
                proptest::prelude::Just(vec![0; 30]),
                proptest::prelude::Just(b"\n".to_vec()),
                proptest::collection::vec(proptest::prelude::any::<u8>(), 0..20),
            ],
            0..8,
        ),
    ) {
        let dir = directory();
        let settings = settings(dir.path());
        let path = &settings.output.path;
        let before = pieces.concat();
        fs::write(path, &before).unwrap();
        let mut rig = Rig::new(settings.clone(), None);
        if rig.open().is_err() {
            proptest::prop_assert_eq!(fs::read(path).unwrap(), before);
            return Ok(());
        }
        rig.write(1).unwrap();
        let after = fs::read(path).unwrap();
        proptest::prop_assert!(after.ends_with(b"\n"));
        let kept = after[..after.len() - 1].iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
        let kept = &after[..kept];
        if before.starts_with(kept) {
            // Cut: only a torn line of ours, or zeros.
            let cut = &before[kept.len()..];
            let harmless = cut.is_empty() || cut.contains(&0) || cut.starts_with(b"{");
            proptest::prop_assert!(harmless, "{:?} was cut off", cut);
        } else {
            proptest::prop_assert_eq!(kept, [&before[..], b"\n"].concat());
        }
    }
}
