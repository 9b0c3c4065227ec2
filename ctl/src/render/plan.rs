//! What an operation would do, as a page of text.

use soloist_core::{preview::PlannedStep, time::Millis};

use super::{json::Plan, length, table::columns};

/// How long the steps take together of which that is known.
pub fn known(steps: &[PlannedStep]) -> Millis {
    let each = steps.iter().filter_map(|step| step.expected);
    Millis(each.fold(0, |sum, length| sum.saturating_add(length.0)))
}

/// The steps of a plan, and how long they take.
pub fn steps(plan: &Plan) -> String {
    if plan.steps.is_empty() {
        return "nothing is to be done\n".to_owned();
    }
    let row = |(at, step): (usize, &PlannedStep)| {
        let expected = step.expected.map_or("-".to_owned(), length);
        [(at + 1).to_string(), step.step.clone(), step.waits_for.clone(), expected]
    };
    let mut text = columns(["#", "STEP", "WAITS FOR", "TAKES"], plan.steps.iter().enumerate().map(row));
    let (count, timed) = (plan.steps.len(), plan.steps.iter().filter(|step| step.expected.is_some()).count());
    text.push_str(&match timed {
        0 => "\nno step of these kinds was made in this fleet yet, so it is not known how long it takes\n"
            .to_owned(),
        _ => format!("\nabout {} for {timed} of {count} steps, by the last times here\n", length(plan.known)),
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::Fresh;

    fn plan(expected: [Option<u64>; 2]) -> Plan {
        let step = |step: &str, expected: Option<u64>| PlannedStep {
            step: step.into(),
            waits_for: format!("the end of {step}"),
            expected: expected.map(Millis),
        };
        let steps = vec![step("reach a", expected[0]), step("grant", expected[1])];
        Plan { known: known(&steps), steps, freshness: Fresh::default() }
    }

    #[test]
    fn what_is_known_of_the_time_is_summed_up() {
        let expected = "\
#  STEP     WAITS FOR           TAKES
1  reach a  the end of reach a  1 min 10 s
2  grant    the end of grant    -

about 1 min 10 s for 1 of 2 steps, by the last times here
";
        assert_eq!(steps(&plan([Some(70_000), None])), expected);
        assert!(steps(&plan([None, None])).ends_with("so it is not known how long it takes\n"));
        assert_eq!(plan([Some(1), Some(2)]).known, Millis(3));
        assert_eq!(steps(&Plan { steps: Vec::new(), ..plan([None, None]) }), "nothing is to be done\n");
    }
}
