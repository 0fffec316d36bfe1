//! Turning segments into archives.
//!
//! The order of the steps is what keeps a segment safe: the archive gets its name only when it is
//! complete and on the disk, and the segment goes only when that name is on the disk too.
//! Wherever this is cut short, either the segment or the archive is there, or both; the names
//! alone say what is left to do.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use rustix::fs::FileType;
use rustix::io::Errno;

use super::disk::{Disk, Purpose, is};
use super::names::{Kind, Moment};
use super::place::Place;
use super::retention::{Limits, reserve};

/// Bytes read, and compressed, at a time; how promptly the work stops when it must.
const CHUNK: usize = 128 << 10;

/// One look through a directory: what is to be done there.
#[derive(Clone, Debug)]
pub(crate) struct Pass {
    pub(crate) place: Arc<Place>,
    /// 1 to 9; 0: only what an earlier run left half done.
    pub(crate) level: u32,
    pub(crate) limits: Limits,
}

/// Why a segment was left as it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("there is no room for its archive")]
    NoRoom,
    #[error("it does not get smaller")]
    Incompressible,
    #[error("its archive exists and holds something else; remove one of the two")]
    Different,
    #[error("it is not a plain file with one name")]
    Foreign,
    #[error("stopped")]
    Stopped,
}

impl Problem {
    /// Whether another attempt may fare better without anybody's help.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, Self::Io(_) | Self::NoRoom)
    }

    /// What makes two problems the same, for the log.
    pub(crate) fn kind(&self) -> (&'static str, i32) {
        match self {
            Self::Io(error) => ("compress", error.raw_os_error().unwrap_or(0)),
            Self::NoRoom => ("no room", 0),
            Self::Incompressible => ("incompressible", 0),
            Self::Different => ("different", 0),
            Self::Foreign => ("foreign", 0),
            Self::Stopped => ("stopped", 0),
        }
    }
}

/// Compresses every segment of the directory, oldest first, and finishes what was interrupted.
/// Goes on to the next segment when there is a problem with one. Returns the problems with the
/// names of their segments; empty when nothing is left to do.
pub(crate) fn run(disk: &Disk, pass: &Pass, stop: &AtomicBool) -> Vec<(String, Problem)> {
    let place = &*pass.place;
    let inventory = match place.inventory(disk) {
        Ok(inventory) => inventory,
        Err(error) => return vec![(place.names.active().to_owned(), error.into())],
    };
    let mut problems = Vec::new();
    // Nobody else makes archives while we hold the lock, so these are left over.
    for first in inventory.partial {
        let name = place.names.name(first, Kind::Partial);
        if let Err(error) = disk.remove(place, &name) {
            problems.push((name, error.into()));
        }
    }
    let stored = inventory.stored;
    for segment in stored.iter().filter(|file| file.kind == Kind::Segment) {
        let name = place.names.name(segment.first, Kind::Segment);
        let archived = stored.iter().any(|f| f.first == segment.first && f.kind == Kind::Archive);
        let result = if stop.load(Ordering::Relaxed) {
            Err(Problem::Stopped)
        } else if archived {
            settle_pair(disk, place, segment.first, stop)
        } else if pass.level > 0 {
            room(disk, pass, segment.size)
                .and_then(|()| compress(disk, place, segment.first, pass.level, stop))
        } else {
            continue;
        };
        match result {
            Ok(()) => place.changed(),
            Err(problem) => problems.push((name, problem)),
        }
    }
    problems
}

/// Whether compressing a segment of `size` bytes keeps within retention's limits.
fn room(disk: &Disk, pass: &Pass, size: u64) -> Result<(), Problem> {
    let place = &*pass.place;
    let active = disk.facts_at(place, place.names.active())?.map_or(0, |facts| facts.size);
    let stored: u64 = place.inventory(disk)?.stored.iter().map(|file| file.size).sum();
    let space = disk.space(place)?;
    let fits = active + stored + reserve(size) <= pass.limits.max_total_size
        && space.free >= pass.limits.floor(space).saturating_add(reserve(size));
    if fits { Ok(()) } else { Err(Problem::NoRoom) }
}

fn compress(
    disk: &Disk,
    place: &Place,
    first: Moment,
    level: u32,
    stop: &AtomicBool,
) -> Result<(), Problem> {
    let Some(source) = open(disk, place, &place.names.name(first, Kind::Segment))? else {
        // Retention was faster.
        return Ok(());
    };
    let partial = place.names.name(first, Kind::Partial);
    // Whatever keeps this from being made is not ours to remove.
    let target = disk.create(place, &partial)?;
    let written = write_archive(disk, &source, &target, level, stop);
    if let Err(problem) = written {
        // If it stays, the next pass removes it.
        let _ = disk.remove(place, &partial);
        return Err(problem);
    }
    match publish(disk, place, first) {
        Ok(true) => finish(disk, place, first),
        Ok(false) => Ok(()),
        Err(error) => {
            let _ = disk.remove(place, &partial);
            Err(error.into())
        }
    }
}

/// Gives the partial archive its name. False when retention removed the segment meanwhile: then the archive goes
/// too, because what is older than a gap would look as if the records of the gap had been lost.
fn publish(disk: &Disk, place: &Place, first: Moment) -> io::Result<bool> {
    let partial = place.names.name(first, Kind::Partial);
    let _held = place.hold_names(disk);
    let wanted = disk.facts_at(place, &place.names.name(first, Kind::Segment))?.is_some();
    if wanted {
        disk.rename(place, &partial, &place.names.name(first, Kind::Archive))?;
    } else {
        disk.remove(place, &partial)?;
    }
    Ok(wanted)
}

/// Makes the archive's name durable, then removes the segment. That the removal is durable does
/// not matter: the next start would find both and do it again.
fn finish(disk: &Disk, place: &Place, first: Moment) -> Result<(), Problem> {
    disk.sync_directory(place)?;
    let _held = place.hold_names(disk);
    disk.remove(place, &place.names.name(first, Kind::Segment))?;
    Ok(())
}

fn write_archive(
    disk: &Disk,
    source: &File,
    target: &File,
    level: u32,
    stop: &AtomicBool,
) -> Result<(), Problem> {
    let most = reserve(disk.facts(source)?.size);
    let mut encoder = GzEncoder::new(Vec::with_capacity(CHUNK), Compression::new(level.min(9)));
    let mut buffer = vec![0; CHUNK];
    let (mut from, mut to) = (0, 0);
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(Problem::Stopped);
        }
        let length = disk.read_at(source, &mut buffer, from)?;
        if length == 0 {
            break;
        }
        from += length as u64;
        encoder.write_all(&buffer[..length])?;
        let ready = encoder.get_mut();
        to += ready.len() as u64;
        if to > most {
            return Err(Problem::Incompressible);
        }
        disk.append(target, ready)?;
        ready.clear();
    }
    // The trailer, then the disk, then (in our caller) the name.
    disk.append(target, &encoder.finish()?)?;
    disk.sync_data(target)?;
    Ok(())
}

/// A segment whose archive exists: compression was interrupted right before its last step, or
/// somebody unpacked the archive and kept it. The segment goes if the archive holds just the same.
fn settle_pair(
    disk: &Disk,
    place: &Place,
    first: Moment,
    stop: &AtomicBool,
) -> Result<(), Problem> {
    let segment = open(disk, place, &place.names.name(first, Kind::Segment))?;
    let archive = open(disk, place, &place.names.name(first, Kind::Archive))?;
    let (Some(segment), Some(archive)) = (segment, archive) else { return Ok(()) };
    let packed = io::BufReader::with_capacity(CHUNK, Reader { disk, file: &archive, offset: 0 });
    let mut unpacked = MultiGzDecoder::new(packed);
    let (mut expected, mut found) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut offset = 0;
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(Problem::Stopped);
        }
        let length = disk.read_at(&segment, &mut expected, offset)?;
        if length == 0 {
            break;
        }
        offset += length as u64;
        match unpacked.read_exact(&mut found[..length]) {
            Ok(()) if found[..length] == expected[..length] => {}
            Ok(()) => return Err(Problem::Different),
            Err(error) if error.raw_os_error().is_some() => return Err(error.into()),
            Err(_) => return Err(Problem::Different),
        }
    }
    match unpacked.read(&mut found[..1]) {
        Ok(0) => finish(disk, place, first),
        Err(error) if error.raw_os_error().is_some() => Err(error.into()),
        _ => Err(Problem::Different),
    }
}

/// Opens a file of ours for reading; none if it has gone.
fn open(disk: &Disk, place: &Place, name: &str) -> Result<Option<File>, Problem> {
    let file = match disk.open(place, name, Purpose::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if is(&error, &[Errno::LOOP]) => return Err(Problem::Foreign),
        Err(error) => return Err(error.into()),
    };
    let facts = disk.facts(&file)?;
    if facts.kind != FileType::RegularFile || facts.links > 1 {
        return Err(Problem::Foreign);
    }
    Ok(Some(file))
}

struct Reader<'a> {
    disk: &'a Disk,
    file: &'a File,
    offset: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.disk.read_at(self.file, buffer, self.offset)?;
        self.offset += length as u64;
        Ok(length)
    }
}
