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
    /// Where it serves.
    #[allow(dead_code, reason = "not every test sends requests")]
    pub(crate) proxy: String,
}

impl Sidecar {
    /// Starts it in `dir`.
    #[allow(dead_code, reason = "not every test that shares this file starts one without options")]
    pub(crate) fn start(dir: &Path) -> Self {
        Self::start_with(dir, &[])
    }

    /// Starts it in `dir` with more options.
    pub(crate) fn start_with(dir: &Path, more: &[&str]) -> Self {
        let listen = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data-dir", "data"];
        let mut command = Command::new(env!("CARGO_BIN_EXE_bursar"));
        command.arg("serve").args(listen).args(more).current_dir(dir).env_clear().stdin(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let ready = lines.find(|line| line.contains("bursar serves")).expect("it serves");
        let ready: Value = serde_json::from_str(&ready).unwrap();
        let admin = format!("http://{}", ready["admin"].as_str().unwrap());
        let proxy = ready["proxy"].as_str().unwrap().to_owned();
        // Whoever writes to a pipe that nobody reads would stop.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, admin, proxy }
    }
}

/// Tells a process to end, as a kubelet would, and waits until it has.
#[allow(dead_code, reason = "not every test ends what it starts by a signal")]
pub(crate) fn end(child: &mut Child) -> Option<i32> {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    child.wait().unwrap().code()
}

impl Sidecar {
    /// Ends it as a kubelet would.
    #[allow(dead_code, reason = "not every test ends what it starts by a signal")]
    pub(crate) fn end(mut self) {
        assert_eq!(end(&mut self.child), Some(0));
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
