//! `make first-hour`: plays a first hour with the tool on a real cluster, and writes `docs/first-hour.md`.

use anyhow::Result;
use tests::first_hour;

#[tokio::main]
async fn main() -> Result<()> {
    let page = first_hour::play().await?;
    std::fs::write(first_hour::PATH, page)?;
    Ok(())
}
