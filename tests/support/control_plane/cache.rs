//! The cache of what was built: a folder for each state of the sources, and one builder at a time.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::programs::go_release;
use super::progress::{BUILT_WITHIN, Progress, wait_until};

/// The sources of the programs.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/control-plane");

/// The cache's folder for these sources and this Go.
pub(super) fn cached(
    part: &str,
    what: &str,
    build: impl FnOnce(&Path, &Path, &str) -> Result<()>,
) -> Result<PathBuf> {
    let sources = Path::new(SOURCES).join(part);
    let name = format!("control-plane-{part}-{}", fingerprint(&sources)?);
    kept(part, &name, what, |into| build(&sources, into, what))
}

/// The cache's folder of this name. It appears by a rename when `make` is through with the one that it is given, so a
/// killed build leaves nothing that looks finished.
pub(super) fn kept(
    part: &str,
    name: &str,
    what: &str,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let root = cache_root()?;
    let folder = root.join(name);
    if folder.is_dir() {
        return Ok(folder);
    }
    let _lock = lock(&root, what)?;
    if folder.is_dir() {
        return Ok(folder);
    }
    // Only the holder of the lock builds, so an unfinished folder is a killed build's.
    let unfinished = root.join(format!("unfinished-{part}"));
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)?;
    }
    fs::create_dir_all(&unfinished)?;
    make(&unfinished)?;
    fs::rename(&unfinished, &folder)
        .with_context(|| format!("moving a build to {}", folder.display()))?;
    Ok(folder)
}

fn cache_root() -> Result<PathBuf> {
    let set = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let root = set("SSM_OPERATOR_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("ssm-session-operator")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/ssm-session-operator")))
        .context("no place for the test control plane: set SSM_OPERATOR_CACHE to a folder")?;
    fs::create_dir_all(&root).with_context(|| {
        format!(
            "creating {}: set SSM_OPERATOR_CACHE to a writable folder",
            root.display()
        )
    })?;
    Ok(root.canonicalize()?)
}

/// 16 hex digits that change with the sources, the Go release and the platform.
fn fingerprint(sources: &Path) -> Result<String> {
    let mut files = fs::read_dir(sources)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<Vec<_>>>()?;
    files.sort();
    let mut hash = Sha256::new();
    for file in files.iter().filter(|file| file.is_file()) {
        hash.update(fs::read(file)?);
    }
    hash.update(go_release(sources)?);
    Ok(hash
        .finalize()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

/// Makes this process the only builder until the file is dropped; the kernel unlocks it for a
/// process that was killed.
fn lock(root: &Path, what: &str) -> Result<File> {
    let path = root.join("lock");
    let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
    let mut progress = Progress::new(format!("waiting for another process to build {what}"));
    let locked = wait_until(BUILT_WITHIN, || match file.try_lock() {
        Ok(()) => Ok(Some(())),
        Err(TryLockError::WouldBlock) => {
            progress.tick();
            Ok(None)
        }
        Err(TryLockError::Error(error)) => Err(error),
    });
    match locked.with_context(|| format!("locking {}", path.display()))? {
        Some(()) => Ok(file),
        None => bail!(
            "another process has held {} for {BUILT_WITHIN:?}",
            path.display()
        ),
    }
}
