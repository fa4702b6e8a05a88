//! `docs/first-hour.md` is what happens.

use anyhow::{Result, ensure};
use tests::first_hour;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_is_what_happens() -> Result<()> {
    let page = std::fs::read_to_string(first_hour::PATH)?;
    let played = first_hour::play().await?;
    let differs = |(told, happened): (&str, &str)| {
        (told != happened)
            .then(|| format!("the page says\n{told}\nand this is what happens:\n{happened}"))
    };
    let first = page.lines().zip(played.lines()).find_map(differs);
    ensure!(page == played, "`make first-hour` writes it anew: {first:?}");
    Ok(())
}
