//! The order and the number of operations.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::*;
use crate::archive::disk::Operation;
use crate::archive::faults::Verdict;

#[test]
fn the_active_file_is_the_same_inode_until_it_is_rotated() {
    let dir = directory();
    let path = dir.path().join("b.jsonl");
    let mut rig = Rig::opened(settings(dir.path()));
    rig.write(1).unwrap();
    let inode = fs::metadata(&path).unwrap().ino();
    rig.write(1).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    rig.rotate().unwrap();
    assert_ne!(fs::metadata(&path).unwrap().ino(), inode);
}

/// Only notes what is done.
#[derive(Debug, Default)]
struct Trace(Mutex<Vec<Operation>>);

impl Fault for Trace {
    fn verdict(&self, operation: Operation) -> Verdict {
        self.0.lock().unwrap().push(operation);
        Verdict::Go
    }

    fn shorten<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes
    }
}

impl Trace {
    /// The operations that change something, since the last call.
    fn changes(&self) -> Vec<Operation> {
        let mut all = std::mem::take(&mut *self.0.lock().unwrap());
        all.retain(|operation| {
            !matches!(
                operation,
                Operation::Stat
                    | Operation::List
                    | Operation::Space
                    | Operation::Read
                    | Operation::Open
                    | Operation::OpenDirectory
            )
        });
        all
    }
}

/// `docs/durability.md` gives the reasons.
#[test]
fn the_order_of_operations() {
    use Operation::*;
    let dir = directory();
    let mut settings = settings(dir.path());
    settings.output.fsync = true;
    let trace = Arc::new(Trace::default());
    let mut rig = Rig::new(settings.clone(), Some(trace.clone()));
    rig.open().unwrap();
    assert_eq!(trace.changes(), [Lock, Create]);
    rig.write(1).unwrap();
    assert_eq!(trace.changes(), [SyncDirectory, Write, SyncData]);
    rig.write(1).unwrap();
    assert_eq!(trace.changes(), [Write, SyncData]);
    rig.rotate().unwrap();
    assert_eq!(trace.changes(), [Rename, Create]);
    rig.write(1).unwrap();
    assert_eq!(trace.changes(), [SyncDirectory, Write, SyncData]);
    assert!(rig.compress().is_empty());
    let archive = trace.changes();
    let steps = [Create, Write, SyncData, Rename, SyncDirectory, Remove];
    let mut squeezed = archive.clone();
    squeezed.dedup();
    assert_eq!(squeezed, steps, "{archive:?}");

    settings.output.fsync = false;
    rig.recorder.reconfigure(settings).unwrap();
    rig.write(1).unwrap();
    assert_eq!(trace.changes(), [Write]);
}

#[test]
fn few_system_calls_per_flush() {
    let dir = directory();
    let trace = Arc::new(Trace::default());
    let mut rig = Rig::new(settings(dir.path()), Some(trace.clone()));
    rig.open().unwrap();
    rig.write(1).unwrap();
    trace.changes();
    rig.write(1).unwrap();
    let calls = trace.0.lock().unwrap().len();
    assert!(calls <= 6, "{:?}", trace.0.lock().unwrap());
}
