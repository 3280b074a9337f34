//! A device with one queue that foreground and migration share.

use std::collections::VecDeque;

use crate::types::{Nanos, ObjectId};

/// A real device that would be further behind than this is faster than its numbers say: several disks, or much is in memory.
const BEHIND_MAX: Nanos = Nanos::from_secs(60);
/// Sequential streams that a device follows at a time (read-ahead contexts).
const STREAMS: usize = 32;

/// What an access costs: positioning unless it goes on where a stream stopped, then transfer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Device {
    /// Positioning, milliseconds.
    pub seek_ms: f64,
    /// Transfer, MiB per second.
    pub transfer_mib_per_s: f64,
}

impl Device {
    /// A 7200 rpm disk (Baleen, FAST '24).
    pub const HDD: Device = Device {
        seek_ms: 11.5,
        transfer_mib_per_s: 143.0,
    };
    /// A SATA SSD: an assumption, not a measurement.
    pub const SSD: Device = Device {
        seek_ms: 0.1,
        transfer_mib_per_s: 500.0,
    };

    /// Time for so many positionings and bytes.
    pub fn time(&self, seeks: u32, bytes: u64) -> Nanos {
        let seconds = f64::from(seeks) * self.seek_ms / 1e3
            + bytes as f64 / (self.transfer_mib_per_s * 1_048_576.0);
        Nanos((seconds * Nanos::PER_SECOND as f64) as u64)
    }
}

/// A device at work: first come, first served.
pub struct Line {
    device: Device,
    free_at: Nanos,
    /// Time in which it was busy.
    pub busy: Nanos,
    /// Where streams stopped, the latest last.
    streams: VecDeque<(ObjectId, u32)>,
    /// The load is one that a real device serves: see [`Line::beside_a_real_one`].
    real: bool,
    /// The device's numbers were found too low: nothing waits until it would have had a pause.
    refuted: bool,
    /// Until when that was looked at, and how long it was so, all together.
    refuted_until: Nanos,
    /// Time in which nothing had to wait because of that.
    pub refuted_for: Nanos,
}

impl Line {
    /// Idle, its heads nowhere.
    pub fn new(device: Device) -> Self {
        Self {
            device,
            free_at: Nanos(0),
            busy: Nanos(0),
            streams: VecDeque::new(),
            real: false,
            refuted: false,
            refuted_until: Nanos(0),
            refuted_for: Nanos(0),
        }
    }

    /// The same, for a load that arrives as fast as a real device serves it. One that is far behind is not what the load met: nothing
    /// waits for it then.
    pub fn beside_a_real_one(device: Device) -> Self {
        Self {
            real: true,
            ..Self::new(device)
        }
    }

    /// Whether the device's numbers are too low for the load, at `now`.
    pub fn is_refuted(&mut self, now: Nanos) -> bool {
        if self.refuted {
            // With a pause it is over.
            let until = now.min(self.free_at);
            self.refuted_for = self.refuted_for.plus(until.since(self.refuted_until));
            self.refuted_until = self.refuted_until.max(until);
            self.refuted = self.free_at > now;
        }
        self.refuted
    }

    /// Serves an access that arrives at `now`; answers when it ends.
    pub fn serve(&mut self, now: Nanos, id: ObjectId, offset: u32, len: u32) -> Nanos {
        // The next object of the file is not adjacent on the disk: one positioning per object.
        let stream = self.streams.iter().position(|s| *s == (id, offset));
        let seeks = u32::from(stream.is_none() || offset == 0);
        if let Some(at) = stream {
            self.streams.remove(at);
        }
        self.streams.push_back((id, offset.saturating_add(len)));
        if self.streams.len() > STREAMS {
            self.streams.pop_front();
        }
        let time = self.device.time(seeks, u64::from(len));
        self.busy = self.busy.plus(time);
        let refuted = self.is_refuted(now);
        self.free_at = self.free_at.max(now).plus(time);
        if self.real && self.free_at > now.plus(BEHIND_MAX) {
            self.free_at = now.plus(BEHIND_MAX);
            if !refuted {
                (self.refuted, self.refuted_until) = (true, now);
            }
        }
        match self.refuted {
            true => now.plus(time),
            false => self.free_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::FileId;

    #[test]
    fn one_queue_and_one_positioning_per_stream() {
        let device = Device {
            seek_ms: 10.0,
            transfer_mib_per_s: 1.0,
        };
        let mut line = Line::new(device);
        let id = ObjectId::new(FileId(1), 0);
        let mib = 1 << 20;
        assert_eq!(line.serve(Nanos(0), id, 0, mib), Nanos::from_millis(1010));
        // Arrives while the first is served: waits, but needs no positioning.
        let second = line.serve(Nanos::from_millis(5), id, mib, mib);
        assert_eq!(second, Nanos::from_millis(2010));
        let elsewhere = line.serve(Nanos::from_secs(10), id, 7, 0);
        assert_eq!(elsewhere, Nanos::from_millis(10_010));
        assert_eq!(line.busy, Nanos::from_millis(2020));
    }

    #[test]
    fn what_no_such_device_could_have_served_waits_for_nothing_until_a_pause() {
        let device = Device {
            seek_ms: 0.0,
            transfer_mib_per_s: 1.0,
        };
        let (id, second) = (ObjectId::new(FileId(1), 0), 1 << 20);
        let mut patient = Line::new(device);
        let mut line = Line::beside_a_real_one(device);
        for waiting in 1..=60 {
            for line in [&mut line, &mut patient] {
                assert_eq!(
                    line.serve(Nanos(0), id, 0, second),
                    Nanos::from_secs(waiting)
                );
            }
            assert!(!line.is_refuted(Nanos(0)));
        }
        assert_eq!(patient.serve(Nanos(0), id, 0, second), Nanos::from_secs(61));
        assert_eq!(line.serve(Nanos(0), id, 0, second), Nanos::from_secs(1));
        let at = Nanos::from_secs(30);
        assert_eq!(line.serve(at, id, 0, second), Nanos::from_secs(31));
        // It would have been done with all that at 61 s.
        assert_eq!(
            line.serve(Nanos::from_secs(62), id, 0, second),
            Nanos::from_secs(63)
        );
        assert_eq!(
            line.serve(Nanos::from_secs(62), id, 0, second),
            Nanos::from_secs(64)
        );
        assert_eq!(
            (line.busy, line.refuted_for),
            (Nanos::from_secs(64), Nanos::from_secs(61))
        );
    }
}
