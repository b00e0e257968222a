//! What the process gives up before it holds anybody's secrets.
//!
//! Invariant: keys and prompts that are in memory are not written to a core file, and other processes of
//! the same user cannot read them there.
//!
//! Not here: what the image and the systemd unit take away (`deploy`).

/// Switches core dumps off, and with them the reading of this process's memory by others that are not root.
/// A system that does not let it is told of, and no reason not to serve.
pub(crate) fn leave_no_dumps() {
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = rustix::process::setrlimit(rustix::process::Resource::Core, none) {
        tracing::warn!(%error, "core dumps cannot be limited");
    }
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
    {
        tracing::warn!(%error, "core dumps cannot be switched off");
    }
}
