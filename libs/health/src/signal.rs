//! What is kept of one signal between ticks: when it was last seen and how it stood then, and what is usual for it.
//!
//! Kept by name and expression, so that a new policy that leaves a signal's meaning unchanged keeps its past, whatever
//! became of its set-points. Averages weigh by `dt / min(observed, time constant)`: a plain mean at first and an EWMA
//! later, from the four basic operations alone, which give the same bits on every machine (`exp` does not).

use headroom_model::codec::{DecodeError, Decoder, Encoder};
use headroom_model::hash::stable_hash;
use headroom_model::policy::{Family, SignalSpec, ThresholdKind};

/// What is usual for one signal of one server.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Baseline {
    /// Slow average of the value.
    pub(crate) mean: f32,
    /// Slow average of the distance from it.
    pub(crate) spread: f32,
    /// For how long it has been observed, seconds, up to the time constant.
    pub(crate) seconds: f32,
}

impl Baseline {
    /// Takes in a value that stood for `dt` seconds.
    pub(crate) fn observe(&mut self, value: f64, dt: f32, time_constant: f32) {
        self.seconds = (self.seconds + dt).min(time_constant.max(dt));
        let weight = dt / self.seconds;
        let distance = value as f32 - self.mean;
        // The first value is the mean, not a distance from zero.
        if weight < 1.0 {
            self.spread += weight * (distance.abs() - self.spread);
        }
        self.mean += weight * distance;
    }
}

/// What is usual for one signal in one pool.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct PoolBaseline {
    /// Slow average of the pool's median.
    pub(crate) mean: f64,
    /// For how long it has been observed, seconds, up to the time constant.
    pub(crate) seconds: f64,
    /// When the pool last had enough servers; 0 = never.
    pub(crate) seen: u32,
}

impl PoolBaseline {
    /// Takes in a median that stood for `dt` seconds.
    pub(crate) fn observe(&mut self, median: f64, dt: f64, time_constant: f64) {
        self.seconds = (self.seconds + dt).min(time_constant.max(dt));
        self.mean += dt / self.seconds * (median - self.mean);
    }
}

/// One signal of all servers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SignalState {
    /// Hash of name and expression.
    pub(crate) key: u64,
    /// When it last had a value; 0 = never.
    pub(crate) last_seen: Vec<u32>,
    /// The pressure it had then; NaN where it was insufficient.
    pub(crate) last_pressure: Vec<f32>,
    /// Since when it deviates from peers or from its baseline; 0 = it does not. Empty where nothing is compared.
    pub(crate) deviating_since: Vec<u32>,
    /// What is usual. Empty where nobody asks.
    pub(crate) own: Vec<Baseline>,
    /// What is usual in each pool. Empty where nobody asks.
    pub(crate) pools: Vec<PoolBaseline>,
}

/// The key of a signal's state.
pub(crate) fn key(spec: &SignalSpec) -> u64 {
    stable_hash(&[&spec.name, &spec.expression])
}

/// Whether set-points are multiples of a baseline.
pub(crate) fn is_relative(spec: &SignalSpec) -> bool {
    matches!(spec.threshold_kind, ThresholdKind::Relative { .. })
}

/// Whether a deviation of the signal is a fault, not only a reason.
pub(crate) fn is_fault_witness(spec: &SignalSpec) -> bool {
    matches!(spec.family, Family::Latency | Family::Errors) && spec.peers.is_some()
}

impl SignalState {
    /// Makes the columns long enough, and as many as the signal needs.
    pub(crate) fn fit(&mut self, spec: &SignalSpec, slots: usize, pools: usize) {
        let length = slots.max(self.last_seen.len());
        self.last_seen.resize(length, 0);
        self.last_pressure.resize(length, f32::NAN);
        self.deviating_since.resize(if spec.peers.is_some() { length } else { 0 }, 0);
        let own = is_relative(spec) || is_fault_witness(spec);
        self.own.resize(if own { length } else { 0 }, Baseline::default());
        let pools = if is_relative(spec) { pools.max(self.pools.len()) } else { 0 };
        self.pools.resize(pools, PoolBaseline::default());
    }

    /// Forgets a server.
    pub(crate) fn remove(&mut self, slot: usize) {
        if let Some(seen) = self.last_seen.get_mut(slot) {
            *seen = 0;
        }
        if let Some(pressure) = self.last_pressure.get_mut(slot) {
            *pressure = f32::NAN;
        }
        if let Some(since) = self.deviating_since.get_mut(slot) {
            *since = 0;
        }
        if let Some(own) = self.own.get_mut(slot) {
            *own = Baseline::default();
        }
    }

    pub(crate) fn encode(&self, out: &mut Encoder) {
        out.put_u64(self.key);
        out.put_u32s(&self.last_seen);
        out.put_f32s(&self.last_pressure);
        out.put_u32s(&self.deviating_since);
        out.put_u32(self.own.len() as u32);
        for own in &self.own {
            out.put_f32(own.mean);
            out.put_f32(own.spread);
            out.put_f32(own.seconds);
        }
        out.put_u32(self.pools.len() as u32);
        for pool in &self.pools {
            out.put_f64(pool.mean);
            out.put_f64(pool.seconds);
            out.put_u32(pool.seen);
        }
    }

    pub(crate) fn decode(input: &mut Decoder<'_>, slots: usize) -> Result<Self, DecodeError> {
        let state = Self {
            key: input.get_u64()?,
            last_seen: input.get_u32s()?,
            last_pressure: input.get_f32s()?,
            deviating_since: input.get_u32s()?,
            own: (0..input.get_length(12, "baselines")?)
                .map(|_| Ok(Baseline { mean: input.get_f32()?, spread: input.get_f32()?, seconds: input.get_f32()? }))
                .collect::<Result<Vec<_>, DecodeError>>()?,
            pools: (0..input.get_length(20, "baselines of pools")?)
                .map(|_| Ok(PoolBaseline { mean: input.get_f64()?, seconds: input.get_f64()?, seen: input.get_u32()? }))
                .collect::<Result<Vec<_>, DecodeError>>()?,
        };
        let fits = |length: usize| length == 0 || length == slots;
        if state.last_seen.len() == slots
            && state.last_pressure.len() == slots
            && fits(state.deviating_since.len())
            && fits(state.own.len())
        {
            Ok(state)
        } else {
            Err(input.error("state of a signal"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_average_is_a_mean_at_first_and_slow_later() {
        let mut own = Baseline::default();
        for value in [10.0, 20.0, 30.0] {
            own.observe(value, 10.0, 1800.0);
        }
        assert!((own.mean - 20.0).abs() < 1e-4, "{own:?}");
        own.seconds = 1800.0;
        own.observe(200.0, 10.0, 1800.0);
        assert!((own.mean - 21.0).abs() < 1e-3, "{own:?}");
    }
}
