//! promtool, which runs the unit tests of alert rules: the machine's own, else the one in Debian's package `prometheus`.
//!
//! The package is fetched and unpacked into the cache, and not installed: that needs no rights, and the machine stays as
//! it is. promtool needs the C library and nothing else.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result};

use super::cache::kept;
use super::progress::run_to_end;

/// For whoever has neither.
const MISSING: &str = "promtool is missing, and Debian's package could not be had: install prometheus, by the machine's \
                       package manager or from https://prometheus.io/download, so that promtool is in PATH";

/// As root, apt-get would fetch as a user that can't write into the cache.
const AS_WE_ARE: [&str; 2] = ["-o", "APT::Sandbox::User="];

/// Finds promtool. Blocks: some seconds for the first time, milliseconds later.
pub fn promtool() -> Result<PathBuf> {
    if let Some(own) = in_path("promtool") {
        return Ok(own);
    }
    let name = format!("promtool-{}-{}", env::consts::OS, env::consts::ARCH);
    let folder = kept("promtool", &name, "promtool (seconds)", fetch).context(MISSING)?;
    Ok(folder.join("promtool"))
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

fn fetch(into: &Path) -> Result<()> {
    // What the machine knows of its packages may be nothing, as in most images, or too old. Then it is asked for anew, in
    // a place of our own.
    if download(into, &[]).is_err() {
        let own = own_lists(into)?;
        let mut update = Command::new("apt-get");
        update.arg("update").args(AS_WE_ARE).args(&own);
        let what = "asking for Debian's packages";
        run_to_end(&mut update, &into.join("update.log"), what)?;
        download(into, &own)?;
    }
    let unpacked = into.join("unpacked");
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("-x").arg(package(into)?).arg(&unpacked);
    run_to_end(&mut unpack, &into.join("unpack.log"), "unpacking promtool")?;
    fs::rename(unpacked.join("usr/bin/promtool"), into.join("promtool"))
        .context("the package has no promtool")?;
    for entry in fs::read_dir(into)? {
        let path = entry?.path();
        if path.is_dir() {
            fs::remove_dir_all(path)?;
        } else if path.extension().is_some() {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn download(into: &Path, options: &[String]) -> Result<()> {
    let mut download = Command::new("apt-get");
    download
        .current_dir(into)
        .args(AS_WE_ARE)
        .args(options)
        .args(["download", "prometheus"]);
    let what = "fetching promtool";
    run_to_end(&mut download, &into.join("download.log"), what)
}

/// Options for lists of packages that are in this folder alone.
fn own_lists(into: &Path) -> Result<Vec<String>> {
    let (lists, cache) = (into.join("lists"), into.join("cache"));
    fs::create_dir_all(lists.join("partial"))?;
    fs::create_dir_all(cache.join("archives/partial"))?;
    Ok(vec![
        "-o".to_owned(),
        format!("Dir::State::Lists={}", lists.display()),
        "-o".to_owned(),
        format!("Dir::Cache={}", cache.display()),
    ])
}

/// The package that was fetched.
fn package(folder: &Path) -> Result<PathBuf> {
    let files = fs::read_dir(folder)?.flatten().map(|entry| entry.path());
    let mut packages = files.filter(|file| file.extension().is_some_and(|kind| kind == "deb"));
    packages.next().context("apt-get has fetched nothing")
}
