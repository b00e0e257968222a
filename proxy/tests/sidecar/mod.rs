//! A sidecar that runs for a test.
//!
//! Not here: what it is asked (the tests).

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A sidecar on the ledger `data` in a directory. Dropping it ends it.
pub(crate) struct Sidecar {
    child: Child,
    /// Where its admin API is.
    pub(crate) admin: String,
}

impl Sidecar {
    /// Starts it in `dir`.
    pub(crate) fn start(dir: &Path) -> Self {
        let listen = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data-dir", "data"];
        let mut command = Command::new(env!("CARGO_BIN_EXE_bursar"));
        command.arg("serve").args(listen).current_dir(dir).env_clear().stdin(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let ready = lines.find(|line| line.contains("bursar serves")).expect("it serves");
        let ready: Value = serde_json::from_str(&ready).unwrap();
        let admin = format!("http://{}", ready["admin"].as_str().unwrap());
        // Whoever writes to a pipe that nobody reads would stop.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, admin }
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
