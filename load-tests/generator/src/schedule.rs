//! When requests are due.
//!
//! The schedule is arithmetic on the request's number, not on the last answer: that is what keeps the loop open.

use std::str::FromStr;
use std::time::Duration;

use tokio::time::Instant;

/// How fast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// So many units (points, reads) per second, whatever the server does.
    PerSecond(f64),
    /// The next one as soon as the last one is answered.
    Max,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<f64>() {
            _ if text == "max" => Ok(Self::Max),
            Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(Self::PerSecond(rate)),
            _ => Err(format!("{text}: a number above 0, or `max`")),
        }
    }
}

/// How late a timer may be.
const TIMER_GRAIN: Duration = Duration::from_millis(2);

/// The times at which requests are due.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    begin: Instant,
    every: Option<Duration>,
}

impl Schedule {
    /// Requests of `units` units each, from `begin` on.
    pub fn new(begin: Instant, rate: Rate, units: f64) -> Self {
        let every = match rate {
            Rate::PerSecond(rate) => Some(Duration::from_secs_f64(units / rate)),
            Rate::Max => None,
        };
        Self { begin, every }
    }

    /// Waits until request `number` is due and gives the time from which its latency counts.
    pub async fn due(&self, number: u64) -> Instant {
        let Some(every) = self.every else { return Instant::now() };
        let due = self.begin + Duration::from_secs_f64(every.as_secs_f64() * number as f64);
        // Timers are accurate to a millisecond, which is more than a read takes: the rest is waited for awake.
        if due > Instant::now() + TIMER_GRAIN {
            tokio::time::sleep_until(due - TIMER_GRAIN).await;
        }
        while Instant::now() < due {
            tokio::task::yield_now().await;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::Rate;

    #[test]
    fn a_rate_is_a_number_or_max() {
        let cases = [("max", Some(Rate::Max)), ("250000", Some(Rate::PerSecond(250_000.0))), ("0", None), ("-1", None)];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Rate>().ok(), expected, "{text}");
        }
    }
}
