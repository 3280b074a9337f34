//! Changed inputs, the same in every run: what the suite gives to fuzz targets without a fuzzer.

/// Runs `target` on each seed, on cut ones, and on `rounds` changed ones.
pub fn drive(seeds: &[Vec<u8>], rounds: u64, target: impl Fn(&[u8])) {
    target(&[]);
    for seed in seeds {
        for end in 0..=seed.len() {
            target(&seed[..end]);
        }
    }
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |n: usize| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n.max(1)
    };
    for _ in 0..rounds {
        let Some(seed) = seeds.get(random(seeds.len())) else {
            return;
        };
        let mut input = seed.clone();
        for _ in 0..=random(4) {
            let at = random(input.len());
            match random(6) {
                0 if !input.is_empty() => input[at] = random(256) as u8,
                1 if !input.is_empty() => input[at] ^= 1 << random(8),
                2 => input.insert(at, b"\"<>()/%:,-= \0\xff0"[random(15)]),
                3 if !input.is_empty() => {
                    input.remove(at);
                }
                4 => input.truncate(at),
                // A piece of some seed, anywhere.
                _ => {
                    let other = &seeds[random(seeds.len())];
                    let from = random(other.len());
                    let to = from + random(other.len() - from + 1);
                    input.splice(at..at, other[from..to].iter().copied());
                }
            }
        }
        target(&input);
    }
}
