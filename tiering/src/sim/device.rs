//! A device with one queue that foreground and migration share.

use std::collections::VecDeque;

use crate::types::{Nanos, ObjectId};

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
}

impl Line {
    /// Idle, its heads nowhere.
    pub fn new(device: Device) -> Self {
        Self {
            device,
            free_at: Nanos(0),
            busy: Nanos(0),
            streams: VecDeque::new(),
        }
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
        self.free_at = self.free_at.max(now).plus(time);
        self.free_at
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
}
