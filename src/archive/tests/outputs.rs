//! Another output, put in force while records are written.

use std::fs;

use super::*;

#[test]
fn a_new_path_a_wrong_path_and_off() {
    let dir = directory();
    let mut settings = settings(dir.path());
    settings.output.flush_every = 10;
    let first = settings.output.path.clone();
    let second = dir.path().join("c.jsonl");
    let mut rig = Rig::opened(settings.clone());
    rig.append();
    settings.output.path = second.clone();
    rig.recorder.reconfigure(settings.clone()).unwrap();
    rig.append();
    settings.output.path = dir.path().join("missing/d.jsonl");
    let error = rig.recorder.reconfigure(settings.clone()).unwrap_err();
    assert!(error.may_pass(), "{error}");
    rig.append();
    rig.recorder.flush().unwrap();
    assert_eq!((read_all(&first), read_all(&second)), (vec![0], vec![1, 2]));

    settings.output.enabled = false;
    rig.append();
    rig.recorder.reconfigure(settings.clone()).unwrap();
    rig.append();
    rig.recorder.flush().unwrap();
    rig.passes.lock().unwrap().clear();
    assert_eq!(list(dir.path()), ["b.jsonl", "c.jsonl"], "no lock is held");
    settings.output =
        crate::config::Output { path: first.clone(), enabled: true, ..settings.output };
    rig.recorder.reconfigure(settings).unwrap();
    rig.append();
    rig.recorder.flush().unwrap();
    assert_eq!((read_all(&first), read_all(&second)), (vec![0, 5], vec![1, 2, 3]));
}

#[test]
fn back_to_a_directory_in_which_something_is_still_compressed() {
    let dir = directory();
    let mut settings = settings(dir.path());
    let (first, second) = (settings.output.path.clone(), dir.path().join("c.jsonl"));
    let mut rig = Rig::opened(settings.clone());
    assert!(!rig.passes.lock().unwrap().is_empty(), "a pass holds the first directory");
    settings.output.path = second;
    rig.recorder.reconfigure(settings.clone()).unwrap();
    settings.output.path = first.clone();
    rig.recorder.reconfigure(settings).unwrap();
    rig.write(1).unwrap();
    assert_eq!(read_all(&first), [0]);
}

#[test]
fn lines_that_the_old_output_cannot_take_go_to_the_new_one() {
    let dir = directory();
    let home = dir.path().join("home");
    fs::create_dir(&home).unwrap();
    let mut settings = settings(&home);
    let mut rig = Rig::opened(settings.clone());
    rig.write(1).unwrap();
    fs::rename(&home, dir.path().join("gone")).unwrap();
    assert!(rig.write(2).is_err());
    settings.output.path = dir.path().join("new.jsonl");
    rig.recorder.reconfigure(settings.clone()).unwrap();
    rig.recorder.flush().unwrap();
    assert_eq!(read_all(&settings.output.path), [1]);
}
