//! The examples are good to apply as they stand.

use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::ground::ground;

#[tokio::test]
async fn every_example_passes_admission() -> Result<()> {
    let ground = ground().await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    // A dry run does not make the namespace into which the next document goes.
    ground.kubectl(&["create", "namespace", "shop"]).await?;
    let mut applied = 0;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            let path = path.to_string_lossy();
            ground
                .kubectl(&[
                    "apply",
                    "--dry-run=server",
                    "--validate=strict",
                    "-f",
                    &path,
                ])
                .await?;
            applied += 1;
        }
    }
    assert!(applied >= 2, "only {applied} examples were found");
    Ok(())
}
