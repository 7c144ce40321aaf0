//! Runs the program.

use std::path::Path;
use std::process::Command;

/// Commands that take a device.
const COMPUTING: [&str; 6] = ["bench", "generate", "grid", "inspect", "run", "verify"];

/// The program in `folder`; `words` are its command and flags. It computes on the adapter under test
/// unless they name one.
pub fn program(folder: &Path, words: &[&str]) -> Command {
    let program = assert_cmd::cargo::cargo_bin!("sagittal");
    // With `./with-vulkan --driver` the driver's own loader starts it.
    let mut command = match std::env::var_os("SAGITTAL_TEST_RUNNER") {
        Some(runner) => {
            let mut command = Command::new(runner);
            command.arg(program);
            command
        }
        None => Command::new(program),
    };
    command.current_dir(folder).env_remove("SAGITTAL_LOG").args(words);
    let computes = words.first().is_some_and(|name| COMPUTING.contains(name)) && !words.contains(&"--device");
    if let (Ok(device), true) = (std::env::var("SAGITTAL_DEVICE"), computes) {
        command.args(["--device", &device]);
    }
    command
}
