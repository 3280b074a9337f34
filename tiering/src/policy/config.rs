//! Parameters of the policies: one table of names, units, ranges and defaults feeds everything.

use serde::{Deserialize, Serialize};

use super::parameter::Parameter;

/// A number that can be a parameter.
trait Number: Copy {
    const WHOLE: bool;
    fn to_f64(self) -> f64;
    fn from_f64(value: f64) -> Self;
}

macro_rules! numbers {
    ($($t:ty, $whole:literal);*) => { $(impl Number for $t {
        const WHOLE: bool = $whole;
        fn to_f64(self) -> f64 { self as f64 }
        fn from_f64(value: f64) -> Self { value as $t }
    })* };
}
numbers!(u32, true; u64, true; f64, false);

macro_rules! policies {
    (@tune) => { None };
    (@tune $low:expr, $high:expr) => { Some(($low as f64, $high as f64)) };
    ($($(#[$vdoc:meta])* $variant:ident($config:ident) = $policy:literal / $prefix:literal {
        $($(#[doc = $doc:literal])+ $field:ident: $t:ty = $default:expr, $min:expr => $max:expr, $unit:literal
            $(, tune $low:expr => $high:expr)?;)*
    })*) => {
        $(
            #[doc = concat!("Parameters of `", $policy, "`.")]
            #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
            #[serde(default, deny_unknown_fields)]
            pub struct $config { $($(#[doc = $doc])+ pub $field: $t,)* }

            impl Default for $config {
                fn default() -> Self { Self { $($field: $default,)* } }
            }
        )*

        /// Which policy, and its parameters: `{ name = "cost-benefit", half_life_s = 600 }`.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "name", rename_all = "kebab-case")]
        pub enum PolicyConfig { $($(#[$vdoc])* #[serde(rename = $policy)] $variant($config),)* }

        /// Every parameter of every policy.
        pub const PARAMETERS: &[Parameter] = &[$($(Parameter {
            policy: $policy,
            name: stringify!($field),
            key: concat!($prefix, "_", stringify!($field)),
            unit: $unit,
            min: $min as f64,
            max: $max as f64,
            whole: <$t as Number>::WHOLE,
            default: $default as f64,
            tune: policies!(@tune $($low, $high)?),
            doc: concat!($($doc),+),
        },)*)*];

        impl PolicyConfig {
            /// All policies, by their names in the configuration.
            pub const NAMES: &[&str] = &[$($policy),*];

            /// Its name in the configuration.
            pub const fn name(&self) -> &'static str {
                match self { $(PolicyConfig::$variant(_) => $policy,)* }
            }

            /// The default parameters of a policy, by its name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($policy => Some(PolicyConfig::$variant($config::default())),)*
                    _ => None,
                }
            }

            /// The value of a parameter.
            pub fn get(&self, name: &str) -> Option<f64> {
                match self {
                    $(PolicyConfig::$variant(_config) => match name {
                        $(stringify!($field) => Some(_config.$field.to_f64()),)*
                        _ => None,
                    },)*
                }
            }

            /// Sets a parameter; false when there is none of this name. The range is not checked here.
            pub fn set(&mut self, name: &str, _value: f64) -> bool {
                match self {
                    $(PolicyConfig::$variant(_config) => match name {
                        $(stringify!($field) => { _config.$field = Number::from_f64(_value); true })*
                        _ => false,
                    },)*
                }
            }
        }
    };
}

policies! {
    /// Keeps nothing in the cache, and empties one that holds something.
    None(NoneConfig) = "none" / "none" {}
    /// Promotes on the first read, evicts the least recently used.
    Lru(LruConfig) = "lru" / "lru" {}
    /// Promotes on the first read, evicts in the order of arrival.
    Fifo(FifoConfig) = "fifo" / "fifo" {}
    /// Evicts the least often used.
    Lfu(LfuConfig) = "lfu" / "lfu" {
        /// Counts are halved after so many accesses per resident; 0 never.
        age_every: u32 = 16, 0 => 1_000_000, "accesses", tune 1 => 256;
    }
    /// Adapts between recency and frequency.
    Arc(ArcConfig) = "arc" / "arc" {}
    /// Ranks by the distance between the last two uses.
    Lirs(LirsConfig) = "lirs" / "lirs" {
        /// Share of the capacity for objects not yet used twice in a short time.
        hir_share: f64 = 0.01, 0.0 => 0.9, "", tune 0.01 => 0.5;
        /// Bytes of what the stack lists, evicted objects included, in capacities.
        stack_share: f64 = 2.0, 1.0 => 100.0, "", tune 1.0 => 8.0;
        /// 1: a candidate that is used after it left the stack also makes the oldest ranked object a
        /// candidate, as in libCacheSim; 0 as in the paper.
        demote_on_late_hit: u32 = 0, 0 => 1, "";
    }
    /// A queue for what is new, an LRU list for what came back.
    #[serde(alias = "two-q")]
    TwoQ(TwoQConfig) = "2q" / "2q" {
        /// Share of the capacity for new objects.
        in_share: f64 = 0.25, 0.0 => 1.0, "", tune 0.01 => 0.9;
        /// Bytes of evicted new objects remembered, in capacities.
        out_share: f64 = 0.5, 0.0 => 100.0, "", tune 0.1 => 4.0;
    }
    /// Three queues.
    #[serde(alias = "s3fifo")]
    S3Fifo(S3FifoConfig) = "s3-fifo" / "s3_fifo" {
        /// Share of the capacity for new objects.
        small_share: f64 = 0.1, 0.0 => 1.0, "", tune 0.01 => 0.9;
        /// Bytes of evicted new objects remembered, in capacities.
        ghost_share: f64 = 0.9, 0.0 => 100.0, "", tune 0.1 => 4.0;
        /// Uses after which a new object moves to the main queue.
        move_at: u32 = 2, 1 => 3, "uses", tune 1 => 3;
    }
    /// One queue and a hand.
    Sieve(SieveConfig) = "sieve" / "sieve" {}
    /// A window, a segmented LRU list, and a sketch that decides who stays.
    #[serde(alias = "wtinylfu")]
    WTinyLfu(WTinyLfuConfig) = "w-tinylfu" / "w_tinylfu" {
        /// Share of the capacity for the window.
        window_share: f64 = 0.01, 0.0 => 0.9, "", tune 0.01 => 0.9;
        /// Share of the rest for what was used again there.
        protected_share: f64 = 0.8, 0.0 => 1.0, "", tune 0.1 => 0.95;
        /// Counts are halved after so many observations per resident.
        age_every: u32 = 10, 1 => 1_000_000, "accesses", tune 1 => 256;
        /// Largest count of uses.
        count_max: u32 = 15, 1 => 65_535, "uses";
        /// 1: counts and segments as libCacheSim has them (what leaves the window is counted again, hits
        /// there are not; new objects enter the protected segment while it has room); 2: as its later
        /// versions (one admission per eviction); 0 as in the paper.
        as_libcachesim: u32 = 0, 0 => 2, "";
    }
    /// Uses times cost by size, with a clock.
    Gdsf(GdsfConfig) = "gdsf" / "gdsf" {
        /// Cost of a fetch beside its size; 0 makes every fetch cost the same.
        fixed_bytes: u64 = 0, 0 => 1_u64 << 30, "bytes", tune 1_u64 << 10 => 1_u64 << 26;
    }
    /// Least recently used, and only what was missed twice gets in.
    #[serde(alias = "lru2nd")]
    Lru2nd(Lru2ndConfig) = "lru-2nd" / "lru_2nd" {
        /// Bytes of missed objects remembered, in capacities.
        ghost_share: f64 = 1.0, 0.0 => 1000.0, "", tune 0.1 => 10.0;
    }
    /// Promotes what was seen in the last periods, like Ceph's hit sets. Defaults are Ceph's
    /// (`hit_set_count` 4, `hit_set_period` 1200 s, `min_read_recency_for_promote` 1,
    /// `osd_tier_promote_max_bytes_sec` 5 MiB, `osd_tier_promote_max_objects_sec` 25).
    Recency(RecencyConfig) = "recency" / "recency" {
        /// Length of a period.
        period_s: u64 = 1200, 1 => 31_536_000, "seconds", tune 10 => 7200;
        /// Periods remembered, the current one included.
        periods: u32 = 4, 1 => 64, "periods", tune 1 => 8;
        /// Promote what was already seen in each of the last so many periods; 0 promotes always.
        needed: u32 = 1, 0 => 64, "periods", tune 0 => 4;
        /// A period ends early when it has seen so many objects: bounds memory.
        period_objects_max: u32 = 100_000, 1 => 1_u32 << 26, "objects";
        /// Promotion budget; 0 is no limit.
        promote_bytes_per_s: u64 = 5 << 20, 0 => 1_u64 << 40, "bytes per second", tune 1_u64 << 20 => 1_u64 << 30;
        /// Promotion budget; 0 is no limit.
        promote_objects_per_s: u32 = 25, 0 => 1_000_000, "objects per second";
    }
    /// Keeps what saves the backing device most head time per byte, as it and its class have shown.
    CostBenefit(CostBenefitConfig) = "cost-benefit" / "cost_benefit" {
        /// Time in which the memory of an access fades to a half; what classes have shown fades 10 times slower.
        half_life_s: f64 = 600.0, 0.001 => 31_536_000.0, "seconds", tune 20.0 => 20_000.0;
        /// Promote when the head time spent exceeds this many times the price of the move.
        theta: f64 = 1.0, 0.001 => 1000.0, "", tune 0.3 => 10.0;
        /// Promote only if what the class promises, less the price of the room, is this many times that of the move.
        margin: f64 = 1.0, 0.0 => 1000.0, "", tune 0.0 => 4.0;
        /// The price of room: what the coldest resident saves there, and this share more.
        stickiness: f64 = 1.0, 0.0 => 1000.0, "", tune 0.0 => 5.0;
        /// What an object's own accesses weigh beside what its class has shown, when it is decided who leaves.
        own_weight: f64 = 30.0, 0.0 => 1_000_000.0, "", tune 0.3 => 3000.0;
        /// Where eviction begins, one object at a time: 0 is the low watermark, 1 the high one.
        evict_from: f64 = 0.65, 0.0 => 1.0, "", tune 0.0 => 1.0;
        /// What a flush that an early deletion may spare weighs.
        dirty_weight: f64 = 0.3, 0.0 => 1000.0, "", tune 0.0 => 2.0;
        /// What a 304 weighs, in uses. It never promotes, but it keeps.
        revalidation_weight: f64 = 0.1, 0.0 => 1000.0, "";
        /// Promotion budget; 0 is no limit.
        promote_bytes_per_s: u64 = 20 << 20, 0 => 1_u64 << 40, "bytes per second", tune 1_u64 << 20 => 1_u64 << 30;
        /// A promotion waits while the backing device has more to do than this.
        queue_ms: f64 = 20.0, 0.0 => 1_000_000.0, "milliseconds", tune 0.0 => 200.0;
        /// The price of a move grows by this, times the time that others wait for a second of head time: by the device's
        /// share of busy time through that of idle time.
        busy_weight: f64 = 1.0, 0.0 => 1000.0, "", tune 0.0 => 4.0;
        /// A new object gets in if it leaves room for as many bytes of smaller ones, which spare a seek each, as lately came;
        /// at most, it leaves what is beyond this share of the free room.
        write_share: f64 = 0.5, 0.0 => 1.0, "", tune 0.0 => 1.0;
        /// Endurance budget: what writes and promotions may put on the cache device; 0 is no limit.
        ssd_bytes_per_day: u64 = 0, 0 => 1_u64 << 50, "bytes per day";
        /// One seek of the backing device (Baleen, FAST '24: 11.5).
        seek_ms: f64 = 11.5, 0.0 => 10_000.0, "milliseconds";
        /// Its transfer rate (Baleen: 143).
        transfer_mib_per_s: f64 = 143.0, 0.001 => 1_000_000.0, "MiB per second";
        /// So few residents are all compared for the choice of a victim; of more a quarter as many are drawn each time, for the
        /// price of room a sixteenth, and compared with the coldest eighth of before.
        samples: u32 = 64, 1 => 1024, "objects";
        /// Objects outside the cache whose heat is remembered: bounds memory.
        ghosts_max: u32 = 262_144, 0 => 1_u32 << 26, "objects";
        /// Seed of the sampling.
        seed: u64 = 0x7469_6572, 0 => (1_u64 << 53) - 1, "";
    }
}

impl Default for PolicyConfig {
    fn default() -> Self {
        PolicyConfig::CostBenefit(CostBenefitConfig::default())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn defaults_are_within_their_ranges() {
        for name in PolicyConfig::NAMES {
            let config = PolicyConfig::from_name(name).unwrap();
            assert_eq!(config.name(), *name);
            assert_eq!(config.violations(), vec![]);
        }
        assert_eq!(PolicyConfig::from_name("belady"), None);
    }

    #[test]
    fn every_row_of_the_table_reads_and_sets_its_field() {
        for row in PARAMETERS {
            let mut config = PolicyConfig::from_name(row.policy).unwrap();
            assert_eq!(config.get(row.name), Some(row.default), "{row:?}");
            assert!(config.set(row.name, row.max));
            assert_eq!(config.get(row.name), Some(row.max), "{row:?}");
            assert!(!config.set("nothing", 1.0));
        }
    }

    #[test]
    fn every_violation_is_named() {
        let config = PolicyConfig::CostBenefit(CostBenefitConfig {
            half_life_s: f64::NAN,
            revalidation_weight: -1.0,
            samples: 0,
            ..Default::default()
        });
        let keys: Vec<_> = config.violations().iter().map(|v| v.key).collect();
        assert_eq!(keys, ["half_life_s", "revalidation_weight", "samples"]);
        assert_eq!(
            config.violations()[1].to_string(),
            "`revalidation_weight` is -1: allowed is 0 to 1000"
        );
    }
}
