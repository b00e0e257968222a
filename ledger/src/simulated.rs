//! A disk that forgets what was not synced when its power goes: for tests of whole programs over a ledger.
//! Only with the feature `simulated-disk`.
//!
//! Invariants
//! - What was synced is there after [`SimulatedDisk::power_on`], byte for byte; a name is there when its
//!   directory was synced after it was made, renamed or removed.
//! - Of the rest any part may be there: none, all, up to some byte, or some sectors without those before.
//! - Between the loss of power and its return every operation fails.
//!
//! Not here: the embedded database, which is not the truth and writes its files itself; single faults at a
//! chosen operation (`faults`, `ends`).

use crate::disk::{Disk, DiskFile, RealDisk};
use crate::{Ledger, OpenError, OpenReport, Options, Pricer};
use bursar_domain::Clock;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// A disk in a directory of the real one. Its clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct SimulatedDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    is_off: bool,
    syncs_fail: bool,
    syncs_lie: bool,
    /// Which file a name means now, and which after a loss of power.
    names: BTreeMap<PathBuf, usize>,
    synced_names: BTreeMap<PathBuf, usize>,
    files: Vec<Contents>,
}

/// The bytes of one file, now and after a loss of power.
#[derive(Clone, Debug, Default)]
struct Contents {
    now: Vec<u8>,
    synced: Vec<u8>,
}

impl SimulatedDisk {
    /// The power goes: nothing is written any more, by whoever still runs.
    pub fn power_off(&self) {
        self.state().is_off = true;
    }

    /// From now on syncs fail, until the power comes back.
    pub fn fail_syncs(&self) {
        self.state().syncs_fail = true;
    }

    /// From now on syncs say that they worked and keep nothing: to show that a test can fail.
    pub fn lie_about_syncs(&self) {
        self.state().syncs_lie = true;
    }

    /// The power comes back. `below` draws a number below its argument: it decides how much of what was not
    /// synced is there.
    ///
    /// # Errors
    /// When the real disk fails.
    pub fn power_on(&self, mut below: impl FnMut(usize) -> usize) -> io::Result<()> {
        let mut state = self.state();
        let mut is_kept: BTreeMap<PathBuf, bool> = BTreeMap::new();
        let mut left = BTreeMap::new();
        let all: Vec<PathBuf> = state.names.keys().chain(state.synced_names.keys()).cloned().collect();
        for path in all {
            let dir = path.parent().unwrap_or(Path::new("")).to_owned();
            // The names of one directory come back together.
            let names_now = *is_kept.entry(dir).or_insert_with(|| below(2) == 0);
            let names = if names_now { &state.names } else { &state.synced_names };
            if let Some(file) = names.get(&path).and_then(|number| state.files.get(*number)) {
                left.insert(path, after_loss(file, &mut below));
            } else if path.exists() {
                std::fs::remove_file(&path)?;
            }
        }
        *state = State { syncs_lie: state.syncs_lie, ..State::default() };
        for (path, bytes) in left {
            std::fs::write(&path, &bytes)?;
            state.add(path, bytes);
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, while there is power.
    fn live(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state();
        if state.is_off { Err(io::Error::other("the power is off")) } else { Ok(state) }
    }

    fn file(&self, real: Box<dyn DiskFile>, number: usize) -> Box<dyn DiskFile> {
        Box::new(SimulatedFile { disk: self.clone(), real, number })
    }
}

/// What of a file is there after a loss of power.
fn after_loss(file: &Contents, below: &mut impl FnMut(usize) -> usize) -> Vec<u8> {
    let longest = file.now.len().max(file.synced.len());
    match below(4) {
        0 => file.synced.clone(),
        1 => file.now.clone(),
        // In order, up to some byte.
        2 => {
            let until = below(longest.saturating_add(1));
            mixed(file, |at| at < until)
        }
        // Sectors in any order.
        _ => {
            let odd = below(64);
            mixed(file, |at| !(at / SECTOR).wrapping_mul(7).wrapping_add(odd).is_multiple_of(3))
        }
    }
}

/// The file as it was synced, but with the later bytes where `is_written` says so.
fn mixed(file: &Contents, is_written: impl Fn(usize) -> bool) -> Vec<u8> {
    let longest = file.now.len().max(file.synced.len());
    let length = if is_written(longest) { file.now.len() } else { longest };
    let byte = |at: usize| {
        let written = if is_written(at) { file.now.get(at) } else { None };
        written.or_else(|| file.synced.get(at)).copied().unwrap_or(0)
    };
    (0..length).map(byte).collect()
}

impl State {
    /// A file that is on the disk.
    fn add(&mut self, path: PathBuf, bytes: Vec<u8>) -> usize {
        let number = self.files.len();
        self.files.push(Contents { now: bytes.clone(), synced: bytes });
        self.names.insert(path.clone(), number);
        self.synced_names.insert(path, number);
        number
    }

    /// A file that is known, or was there before this disk was.
    fn known(&mut self, path: &Path) -> io::Result<usize> {
        match self.names.get(path) {
            Some(number) => Ok(*number),
            None => Ok(self.add(path.to_owned(), std::fs::read(path)?)),
        }
    }

    fn contents(&mut self, number: usize) -> io::Result<&mut Contents> {
        self.files.get_mut(number).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn may_sync(&self) -> io::Result<()> {
        if self.syncs_fail { Err(io::Error::other("input/output error")) } else { Ok(()) }
    }
}

impl Disk for SimulatedDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.live()?;
        if path.exists() {
            state.known(path)?;
        }
        let real = RealDisk.create(path)?;
        let number = state.files.len();
        state.files.push(Contents::default());
        state.names.insert(path.to_owned(), number);
        drop(state);
        Ok(self.file(real, number))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let number = self.live()?.known(path)?;
        Ok(self.file(RealDisk.open(path)?, number))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.live()?;
        let number = state.known(from)?;
        if to.exists() {
            state.known(to)?;
        }
        RealDisk.rename(from, to)?;
        state.names.remove(from);
        state.names.insert(to.to_owned(), number);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.live()?;
        state.known(path)?;
        RealDisk.remove(path)?;
        state.names.remove(path);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.live()?;
        state.may_sync()?;
        let here = |path: &Path| path.parent() == Some(dir);
        let now: Vec<_> =
            state.names.iter().filter(|(path, _)| here(path)).map(|(p, n)| (p.clone(), *n)).collect();
        state.synced_names.retain(|path, _| !here(path));
        state.synced_names.extend(now);
        Ok(())
    }
}

#[derive(Debug)]
struct SimulatedFile {
    disk: SimulatedDisk,
    real: Box<dyn DiskFile>,
    number: usize,
}

impl DiskFile for SimulatedFile {
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.live()?;
        self.real.write_all_at(bytes, offset)?;
        let now = &mut state.contents(self.number)?.now;
        let begin = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let end = begin.saturating_add(bytes.len());
        if now.len() < end {
            now.resize(end, 0);
        }
        if let Some(place) = now.get_mut(begin..end) {
            place.copy_from_slice(bytes);
        }
        Ok(())
    }

    fn sync_data(&mut self) -> io::Result<()> {
        let mut state = self.disk.live()?;
        state.may_sync()?;
        if state.syncs_lie {
            return Ok(());
        }
        let contents = state.contents(self.number)?;
        contents.synced.clone_from(&contents.now);
        Ok(())
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        let mut state = self.disk.live()?;
        self.real.set_len(len)?;
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        state.contents(self.number)?.now.resize(len, 0);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.real.len()
    }
}

impl Ledger {
    /// [`Ledger::open`] on a simulated disk.
    ///
    /// # Errors
    /// As there.
    pub fn open_simulated(
        disk: &SimulatedDisk,
        options: Options,
        clock: Arc<dyn Clock>,
        pricer: Arc<dyn Pricer>,
    ) -> Result<(Self, OpenReport), OpenError> {
        Self::open_on(Arc::new(disk.clone()), options, clock, pricer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk on which `a` is synced with its name, and what `then` does after that.
    fn check(then: impl FnOnce(&SimulatedDisk, &Path), draws: usize, expected: &[(&str, &[u8])]) {
        let dir = tempfile::tempdir().unwrap();
        let disk = SimulatedDisk::default();
        let mut file = disk.create(&dir.path().join("a")).unwrap();
        file.write_all_at(b"one", 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(dir.path()).unwrap();
        then(&disk, dir.path());
        disk.power_off();
        assert!(file.write_all_at(b"x", 0).is_err() && disk.sync_dir(dir.path()).is_err());
        disk.power_on(|end| draws % end).unwrap();
        let mut found = BTreeMap::new();
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            found.insert(name, std::fs::read(path).unwrap());
        }
        let found: Vec<_> = found.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        assert_eq!(found, expected);
    }

    /// With these draws all that was not synced is lost: names at 1, contents at 0 of four.
    const ALL_LOST: usize = 4 * 1_000 + 1;

    fn write(disk: &SimulatedDisk, path: &Path, bytes: &[u8]) -> Box<dyn DiskFile> {
        let mut file = disk.create(path).unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file
    }

    #[test]
    fn a_name_whose_directory_was_not_synced_may_be_gone_and_one_that_was_removed_may_be_back() {
        let make = |disk: &SimulatedDisk, dir: &Path| {
            write(disk, &dir.join("b"), b"two").sync_data().unwrap();
            disk.remove(&dir.join("a")).unwrap();
        };
        check(make, ALL_LOST, &[("a", b"one")]);
        // All of it kept.
        check(make, 0, &[("b", b"two")]);
    }

    #[test]
    fn what_was_synced_is_there_whatever_is_drawn() {
        for draws in 0..64 {
            check(
                |disk, dir| {
                    write(disk, &dir.join("b"), b"two").sync_data().unwrap();
                    disk.rename(&dir.join("b"), &dir.join("c")).unwrap();
                    disk.sync_dir(dir).unwrap();
                },
                draws,
                &[("a", b"one"), ("c", b"two")],
            );
        }
    }

    #[test]
    fn bytes_that_were_not_synced_may_be_there_in_part() {
        let add = |disk: &SimulatedDisk, dir: &Path| {
            disk.open(&dir.join("a")).unwrap().write_all_at(b"two", 3).unwrap();
        };
        let found = |draw: usize| {
            let file = Contents { now: b"onetwo".to_vec(), synced: b"one".to_vec() };
            let mut first = Some(draw);
            String::from_utf8(after_loss(&file, &mut |end| first.take().unwrap_or(5) % end)).unwrap()
        };
        assert_eq!([found(0), found(1)], ["one", "onetwo"]);
        assert_eq!(found(2), "onetw\0", "its length may be there before its bytes");
        check(add, 1, &[("a", b"onetwo")]);
    }

    #[test]
    fn syncs_that_fail_make_nothing_safe() {
        check(
            |disk, dir| {
                let mut file = write(disk, &dir.join("b"), b"two");
                disk.fail_syncs();
                assert!(file.sync_data().is_err() && disk.sync_dir(dir).is_err());
            },
            ALL_LOST,
            &[("a", b"one")],
        );
    }
}
