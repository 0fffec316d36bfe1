//! The race: each subject in turn, round after round, so that what the neighbours do hits all alike.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::attached::strangers;
use crate::load::{Cold, Disk, Hot, Shape};
use crate::machine::{busy_seconds, pause};
use crate::statistics::Spread;
use crate::subject::{NOTHING, Stage, Subject};

/// Events of a sample that are left out, the longest ones: they were interrupted.
pub const TRIMMED: f64 = 0.01;

/// How long each thing is measured in a round; zero for not at all.
#[derive(Clone, Copy, Debug)]
pub struct Lengths {
    pub rounds: usize,
    pub hot: Duration,
    pub cold: Duration,
    pub rate: Duration,
}

/// What one subject cost in one round, with the bracket.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sample {
    /// Nanoseconds at issue and at completion.
    pub hot: Option<[f64; 2]>,
    pub cold: Option<[f64; 2]>,
    /// With the subject, and right after without it.
    pub rate: Option<[Rate; 2]>,
}

/// How fast the load was.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Rate {
    /// Requests per second.
    pub iops: f64,
    /// Seconds that CPUs were busy, per million requests.
    pub busy: f64,
}

/// Everything about one subject.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// The subject's id.
    pub id: String,
    pub name: String,
    /// Why it did not take part.
    pub absent: Option<String>,
    /// By round; `None` where other programs came or went in between.
    pub samples: Vec<Option<Sample>>,
}

/// What was measured, by subject in their order.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Results {
    pub entries: Vec<Entry>,
    /// The kernel kept statistics of programs, which every program pays for.
    pub statistics_were_on: bool,
}

impl Results {
    fn entry(&self, id: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.id == id)
    }
}

/// Races `subjects` under `shape` on `disks`.
///
/// # Errors
/// When nothing can be measured at all, or after Ctrl-C.
pub fn race(
    stage: &Stage,
    subjects: &[Subject],
    disks: &[Disk],
    shape: Shape,
    lengths: Lengths,
) -> Result<Results> {
    let hot = Hot::start(disks, shape)?;
    hot.stop()?;
    let mut cold = match disks.first() {
        Some(disk) => Cold::new(disk)?,
        None => bail!("no disk to race on"),
    };
    let mut results = Results::default();
    let mut present = Vec::new();
    for subject in subjects {
        let absent = subject.start(stage).err().map(|error| format!("{error:#}"));
        crate::machine::check_interrupted()?;
        if let Some(reason) = &absent {
            eprintln!("  left out: {}: {reason}", subject.name);
        } else {
            present.push(*subject);
        }
        let (id, name) = (subject.id.to_owned(), subject.name.to_owned());
        results.entries.push(Entry { id, name, absent, samples: Vec::new() });
    }
    for round in 0..lengths.rounds {
        eprint!("\r  round {}/{} ", round + 1, lengths.rounds);
        let count = present.len();
        for turn in 0..count {
            // Another order each round: nobody always follows the same neighbour.
            let subject =
                &present[(turn * if round % 2 == 0 { 1 } else { count - 1 } + round) % count];
            let sample = undisturbed(|| sample(stage, subject, &hot, &mut cold, lengths))?;
            for entry in results.entries.iter_mut().filter(|entry| entry.id == subject.id) {
                entry.samples.push(sample.clone());
            }
        }
    }
    eprintln!();
    results.statistics_were_on = stage.programs.statistics_are_on();
    Ok(results)
}

/// Measures, and again if others attached programs meanwhile; `None` if they did so three times.
fn undisturbed(mut measure: impl FnMut() -> Result<Sample>) -> Result<Option<Sample>> {
    for _ in 0..3 {
        let before = strangers(&[]);
        let sample = measure()?;
        if strangers(&[]) == before {
            return Ok(Some(sample));
        }
    }
    Ok(None)
}

fn sample(
    stage: &Stage,
    subject: &Subject,
    hot: &Hot<'_>,
    cold: &mut Cold,
    lengths: Lengths,
) -> Result<Sample> {
    let programs = &stage.programs;
    let mut sample = Sample::default();
    let begin = programs.attach("begin")?;
    let mut attached = subject.start(stage)?;
    let end = programs.attach("end")?;
    let means = |before| {
        let after = programs.counts();
        Some([after.mean_ns(&before, 0, TRIMMED)?, after.mean_ns(&before, 1, TRIMMED)?])
    };
    if !lengths.hot.is_zero() {
        hot.go_on()?;
        pause(Duration::from_millis(30))?;
        let before = programs.counts();
        pause(lengths.hot)?;
        sample.hot = means(before);
        hot.stop()?;
    }
    if !lengths.cold.is_zero() {
        let before = programs.counts();
        cold.run(lengths.cold)?;
        sample.cold = means(before);
    }
    drop((end, begin));
    if !lengths.rate.is_zero() {
        hot.go_on()?;
        pause(Duration::from_millis(100))?;
        let with = rate(hot, lengths.rate)?;
        attached.check_alive()?;
        drop(attached);
        pause(Duration::from_millis(100))?;
        sample.rate = Some([with, rate(hot, lengths.rate)?]);
        hot.stop()?;
    }
    Ok(sample)
}

fn rate(hot: &Hot<'_>, length: Duration) -> Result<Rate> {
    let (start, requests, busy) = (Instant::now(), hot.completed()?, busy_seconds()?);
    pause(length)?;
    let requests = (hot.completed()? - requests) as f64;
    let busy = busy_seconds()? - busy;
    Ok(Rate { iops: requests / start.elapsed().as_secs_f64(), busy: busy / requests * 1e6 })
}

/// Which load a figure is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    Hot,
    Cold,
}

/// Nanoseconds per request, issue and completion, of one round: the subject's bracket less the empty one.
fn net_ns(results: &Results, id: &str, round: usize, cache: Cache) -> Option<f64> {
    let gross = |id: &str| {
        let sample = results.entry(id)?.samples.get(round)?.as_ref()?;
        let hooks = if cache == Cache::Hot { sample.hot } else { sample.cold };
        hooks.map(|hooks| hooks.iter().sum::<f64>())
    };
    Some(gross(id)? - gross(NOTHING.id)?)
}

fn rounds(results: &Results, id: &str) -> std::ops::Range<usize> {
    0..results.entry(id).map_or(0, |result| result.samples.len())
}

/// Nanoseconds per request.
pub fn net(results: &Results, id: &str, cache: Cache) -> Option<Spread> {
    Spread::of(rounds(results, id).filter_map(|round| net_ns(results, id, round, cache)))
}

/// Nanoseconds per request as a part of `reference`'s in the same round.
pub fn ratio(results: &Results, id: &str, reference: &str, cache: Cache) -> Option<Spread> {
    Spread::of(rounds(results, id).filter_map(|round| {
        Some(net_ns(results, id, round, cache)? / net_ns(results, reference, round, cache)?)
    }))
}

/// Something of the rates with and without the subject.
pub fn of_rates(results: &Results, id: &str, of: impl Fn([Rate; 2]) -> f64) -> Option<Spread> {
    let samples = results.entry(id)?.samples.iter().flatten();
    Spread::of(samples.filter_map(|sample| sample.rate.map(&of)))
}
