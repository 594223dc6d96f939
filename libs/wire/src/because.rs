//! A decision's reason in words that are true whatever the numbers are: the law cuts at a new report only, and a class
//! only when those below it have given what they can, so that a class above its set-point need not be limited.

use headroom_model::frame::DecisionReason;

/// Why a class is limited, or why not; `signal` is the one that binds it.
pub(crate) fn because(reason: DecisionReason, pressure: f32, set_point: f64, signal: &str) -> String {
    let is_above = f64::from(pressure) > set_point;
    let is_now = match is_above {
        _ if pressure.is_nan() => "no pressure is known".to_owned(),
        true => format!("pressure {pressure:.2} is above the set-point {set_point:.2}"),
        false => format!("pressure {pressure:.2} is not above the set-point {set_point:.2}"),
    };
    match reason {
        DecisionReason::Open if set_point.is_nan() => "the class is exempt from throttling".into(),
        DecisionReason::Open if is_above => {
            format!("not limited, although {is_now}: no new report, or less important classes give way first")
        }
        DecisionReason::Open => format!("not limited: {is_now}"),
        DecisionReason::Throttled if is_above => format!("cut by {signal}: {is_now}"),
        DecisionReason::Throttled => {
            format!("cut to no more than a more important class, which is limited as well; {is_now}")
        }
        DecisionReason::Held if is_above => format!(
            "limited, neither cut nor raised at this tick, although {is_now}: no new report, at the floor already, or \
             less important classes give way first"
        ),
        DecisionReason::Held => format!(
            "limited, neither cut nor raised at this tick: {is_now}, and there is no new report or no room to rise"
        ),
        DecisionReason::Rising => format!("limited and rising: {is_now}"),
        DecisionReason::LowConfidence => format!("not cut, although {is_now}: too little is known to tighten"),
        DecisionReason::NoData => {
            "nothing new is known of the server: the class holds, and moves to its safe value if that lasts".into()
        }
        DecisionReason::LostSignal => {
            "a signal vanished while above its set-point: the class goes no higher than its safe value until it returns"
                .into()
        }
        DecisionReason::HigherClass => {
            format!("limited: {is_now}, but it waits until the more important classes are whole again")
        }
        DecisionReason::Off => "the mode is off: no decisions are derived".into(),
        DecisionReason::Learning => "the cell has just begun to tick: what would tighten now is held instead".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_reason_contradicts_the_numbers() {
        for reason in DecisionReason::ALL {
            for (pressure, true_part, false_parts) in [
                (1.43, "pressure 1.43 is above", ["not above", "no pressure"]),
                (1.2, "pressure 1.20 is not above", ["is above", "no pressure"]),
                (f32::NAN, "no pressure is known", ["not above", "is above"]),
            ] {
                let text = because(reason, pressure, 1.25, "cpu_busy");
                assert!(!text.contains("NaN"), "{reason:?}: {text}");
                assert!(!false_parts.iter().any(|part| text.contains(part)), "{reason:?} at {pressure}: {text}");
                if matches!(reason, DecisionReason::Open | DecisionReason::Throttled | DecisionReason::Held) {
                    assert!(text.contains(true_part), "{reason:?} at {pressure}: {text}");
                }
            }
        }
        assert_eq!(because(DecisionReason::Open, 1.4, f64::NAN, "none"), "the class is exempt from throttling");
        assert_eq!(
            because(DecisionReason::Throttled, 1.43, 1.2, "cpu_busy"),
            "cut by cpu_busy: pressure 1.43 is above the set-point 1.20"
        );
    }
}
