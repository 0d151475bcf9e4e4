//! `crds/` holds what the kinds in `src/crd` say, and nothing else.
#![allow(clippy::expect_used, reason = "so does a test fail")]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use ssm_session_operator::crd;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("crds")
}

/// Every file of a folder, by its name.
fn contents(folder: &Path) -> BTreeMap<OsString, String> {
    fs::read_dir(folder)
        .expect("the folder is in the checkout")
        .map(|entry| {
            let entry = entry.expect("the folder can be listed");
            let text = fs::read_to_string(entry.path()).expect("it holds text files");
            (entry.file_name(), text)
        })
        .collect()
}

#[test]
fn the_committed_files_are_what_the_kinds_say() {
    for (name, yaml) in crd::manifests() {
        let committed = fs::read_to_string(folder().join(&name)).unwrap_or_default();
        assert!(
            committed == yaml,
            "crds/{name} is stale: run `make crds` and commit what it writes"
        );
    }
}

#[test]
fn the_chart_installs_the_same_kinds() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let chart = contents(&root.join("charts/ssm-session-operator/files/crds"));
    assert!(
        chart == contents(&folder()),
        "the chart's files/crds is stale: run `make crds` and commit what it writes"
    );
}

#[test]
fn there_is_no_file_of_a_kind_that_is_gone() {
    let written: BTreeSet<_> = crd::manifests().into_iter().map(|(name, _)| name).collect();
    let committed: BTreeSet<_> = fs::read_dir(folder())
        .expect("crds/ is in the checkout")
        .map(|entry| {
            entry
                .expect("crds/ can be listed")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    assert_eq!(committed, written);
}

#[test]
fn the_files_are_written_into_a_new_folder() {
    let folder = std::env::temp_dir().join(format!("ssm-operator-crds-{}", std::process::id()));
    crd::write_manifests(&folder.join("new")).expect("the folder for temporary files is writable");
    for (name, yaml) in crd::manifests() {
        let written = fs::read_to_string(folder.join("new").join(name)).expect("it was written");
        assert_eq!(written, yaml);
    }
    fs::remove_dir_all(folder).expect("it is ours");
}

#[test]
fn the_schemas_hold_nothing_that_the_api_server_warns_of() {
    for (name, yaml) in crd::manifests() {
        for word in ["nullable", "format: uint", "maximum: 65535.0"] {
            assert!(!yaml.contains(word), "{name} says {word}");
        }
    }
}
