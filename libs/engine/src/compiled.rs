//! A policy made ready: expressions compiled, dialects indexed, the part that readers need set apart. Once per policy.

use std::sync::Arc;

use headroom_catalog::Matcher;
use headroom_expr::{ExprError, Program, Rollup};
use headroom_model::Policy;
use headroom_model::snapshot::{ClassHead, PolicyHead, RuleHead, SignalHead};

/// A policy that an engine can run.
#[derive(Debug)]
pub struct CompiledPolicy {
    /// The policy.
    pub policy: Arc<Policy>,
    pub(crate) program: Program,
    /// The expression that replaces the score, if there is one.
    pub(crate) score: Option<Program>,
    /// The expression for the health of pools and of the cell, if there is one.
    pub(crate) rollup: Option<Rollup>,
    pub(crate) matcher: Arc<Matcher>,
    pub(crate) head: Arc<PolicyHead>,
    /// Per signal: the input that counts its events, if it demands a volume.
    pub(crate) volume_inputs: Vec<Option<(usize, f64)>>,
}

impl CompiledPolicy {
    /// Compiles a policy.
    ///
    /// # Errors
    /// Every expression that cannot be compiled, with its place and a suggestion.
    pub fn new(policy: Policy) -> Result<Self, Vec<ExprError>> {
        let inputs: Vec<&str> = policy.inputs.iter().map(|input| input.name.as_str()).collect();
        let signals: Vec<(&str, &str)> =
            policy.signals.iter().map(|signal| (signal.name.as_str(), signal.expression.as_str())).collect();
        let program = headroom_expr::compile(&inputs, &signals)?;
        let names: Vec<&str> = signals.iter().map(|(name, _)| *name).collect();
        let score = match &policy.score {
            Some(expression) => Some(headroom_expr::compile_score(&names, expression)?),
            None => None,
        };
        let rollup = match &policy.rollup {
            Some(expression) => Some(headroom_expr::compile_rollup(&names, expression)?),
            None => None,
        };
        let volume_inputs = policy
            .signals
            .iter()
            .map(|signal| {
                let (name, least) = signal.volume.as_ref()?;
                Some((policy.inputs.iter().position(|input| input.name == *name)?, *least))
            })
            .collect();
        let head = Arc::new(head_of(&policy));
        let matcher = Arc::new(Matcher::new(&policy.inputs));
        Ok(Self { policy: Arc::new(policy), program, score, rollup, matcher, head, volume_inputs })
    }
}

fn head_of(policy: &Policy) -> PolicyHead {
    PolicyHead {
        hash: policy.hash.clone(),
        signals: policy
            .signals
            .iter()
            .map(|signal| SignalHead {
                name: Arc::from(signal.name.as_str()),
                family: signal.family,
                unit: Arc::from(signal.unit.as_str()),
                reason: Arc::from(signal.reason.as_str()),
                lower_is_worse: signal.lower_is_worse,
                throttle: signal.throttle,
            })
            .collect(),
        classes: policy.classes.iter().map(|class| ClassHead { name: Arc::from(class.as_str()) }).collect(),
        rules: policy
            .rules
            .iter()
            .map(|rule| RuleHead {
                name: Arc::from(rule.name.as_str()),
                thresholds: rule.thresholds.iter().map(|t| [t.under, t.over, t.critical]).collect(),
                set_points: rule.classes.iter().map(|class| class.set_point.unwrap_or(f64::NAN)).collect(),
                on_expiry: rule.classes.iter().map(|class| class.on_expiry).collect(),
                nominals: rule.nominals.iter().map(|nominal| nominal.unwrap_or(f64::NAN)).collect(),
            })
            .collect(),
        inputs: policy
            .inputs
            .iter()
            .map(|input| {
                let dialects = input.sources.iter().map(|source| Arc::from(source.dialect.as_str())).collect();
                (Arc::from(input.name.as_str()), dialects)
            })
            .collect(),
        control_seconds: policy.windows.control_seconds,
        lease_seconds: policy.lease.lease_seconds,
        refresh_seconds: policy.lease.refresh_seconds,
    }
}
