//! Opens the window: see the crate's page.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    embed_window::run()
}
