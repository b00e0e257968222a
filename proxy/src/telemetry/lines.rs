//! Writing log lines on a thread of its own: those of the program, and one for each settled exchange.
//!
//! Invariants
//! - Whoever logs never waits for whoever reads standard error; what finds no room is counted as dropped.
//! - Lines are written whole, several at a time, in pieces that a pipe takes in one go.
//! - A line of an exchange has ids, names and figures, and nothing of its content.
//!
//! Not here: levels and the start of logging (`logging`).

use super::event::Event;
use super::logging;
use super::outbox::Outbox;
use super::request_line::LineWriter;
use crate::tasks;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// What waits to be written.
#[derive(Debug)]
pub(crate) enum Line {
    /// A line of the program.
    Text(Box<[u8]>),
    /// A settled exchange.
    Request(Arc<Event>),
}

/// Lines on their way.
pub(crate) type Lines = Outbox<Line>;

/// Most lines that wait, some hundreds of bytes each.
pub(super) const LINES_MAX: usize = 8_192;
/// Bytes that a pipe takes in one piece (`PIPE_BUF` of Linux).
const PIECE_BYTES: usize = 4_096;
/// How long lines are gathered after the first of them was written.
const GATHER: Duration = Duration::from_millis(20);
const BATCH: usize = 512;

/// The target of an exchange's line, by which its level can be set.
pub(crate) const TARGET: &str = "bursar::request";

/// The thread that writes. Its end writes what is left.
#[derive(Debug)]
pub(crate) struct Writing {
    end: watch::Sender<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.end.send_replace(true);
        // A panic there was logged by its hook.
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// Starts the thread that writes to standard error. From now on the program's own lines go there too.
pub(crate) fn start(lines: &Arc<Lines>, json: bool) -> io::Result<Writing> {
    let (sender, mut end) = watch::channel(false);
    // Not by way of `io::stderr`, whose lock others would wait for.
    let mut out = std::fs::File::from(io::stderr().as_fd().try_clone_to_owned()?);
    lines.set_read(true);
    logging::send_to(lines);
    let lines = Arc::clone(lines);
    let thread = tasks::thread("log".to_owned(), move || async move {
        loop {
            let ends = tokio::select! {
                () = lines.filled() => false,
                _ = end.wait_for(|end| *end) => true,
            };
            if ends {
                lines.set_read(false);
            }
            write_all(&lines, json, &mut out);
            if ends {
                return;
            }
            tokio::time::sleep(GATHER).await;
        }
    })?;
    Ok(Writing { end: sender, thread: Some(thread) })
}

fn write_all(lines: &Lines, json: bool, out: &mut impl io::Write) {
    let (mut piece, mut line) = (Vec::with_capacity(PIECE_BYTES), Vec::new());
    let mut writer = LineWriter::new(json);
    loop {
        let batch = lines.take(BATCH);
        if batch.is_empty() {
            break;
        }
        for next in batch {
            line.clear();
            match next {
                Line::Text(text) => line.extend_from_slice(&text),
                Line::Request(event) => writer.write(&event, &mut line),
            }
            if piece.len().saturating_add(line.len()) > PIECE_BYTES {
                flush(&mut piece, lines, out);
            }
            piece.extend_from_slice(&line);
        }
    }
    flush(&mut piece, lines, out);
}

fn flush(piece: &mut Vec<u8>, lines: &Lines, out: &mut impl io::Write) {
    // A log that cannot be written cannot be told in the log.
    if out.write_all(piece).is_err() {
        lines.drop_entries(memchr::memchr_iter(b'\n', piece).count());
    }
    piece.clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_and_in_order() {
        #[derive(Default)]
        struct Pieces(Vec<Vec<u8>>);
        impl io::Write for Pieces {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.push(bytes.to_vec());
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let lines = Lines::new(2_000);
        lines.set_read(true);
        let text = |n: u32| format!("line {n} {}\n", "x".repeat(30));
        (0..1_000).for_each(|n| lines.push(Line::Text(text(n).into_bytes().into())));
        let mut out = Pieces::default();
        write_all(&lines, true, &mut out);
        assert!(out.0.iter().all(|piece| piece.len() <= PIECE_BYTES && piece.ends_with(b"\n")));
        let all: String = (0..1_000).map(text).collect();
        assert_eq!(String::from_utf8(out.0.concat()).unwrap(), all);
    }
}
