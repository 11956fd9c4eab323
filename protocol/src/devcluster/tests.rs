use super::*;

fn state(target: usize, standing_up: Option<usize>) -> State {
    let stage = |name: &str, up: bool, status: &str| StageState {
        name: name.into(),
        running: up,
        stage_up: up,
        status: status.into(),
    };
    State {
        target,
        standing_up,
        stages: vec![
            stage("dead", true, "UP"),
            stage("up", true, "UP"),
            stage("down", false, "DOWN"),
            stage("crashed", true, "CRASHED"),
            stage("above", true, "UP"),
            stage("twin", true, "UP"),
            stage("twin", true, "UP"),
        ],
    }
}

#[test]
fn only_stages_that_are_up_and_not_above_the_target_are_restarted() {
    let state = state(3, None);
    for (name, outcome) in [
        ("up", RestartOutcome::Restarted),
        ("down", RestartOutcome::Down),
        ("crashed", RestartOutcome::Down),
        ("above", RestartOutcome::AboveTarget),
        ("twin", RestartOutcome::Unknown),
        ("dead", RestartOutcome::Unknown),
        ("none", RestartOutcome::Unknown),
    ] {
        assert_eq!(state.decide(name).0, outcome, "{name}");
    }
    let state = super::tests::state(3, Some(1));
    assert_eq!(state.decide("up").0, RestartOutcome::Starting);
}

#[test]
fn a_crashed_stage_is_started_again_if_it_is_named_and_wanted_and_no_other_is_starting() {
    let crashed = |target, standing_up, name: &str| {
        let mut state = state(target, standing_up);
        state.stages[1].status = "CRASHED".into();
        state.crashed(&["up".into(), name.into()])
    };
    let of = |up, third| BTreeMap::from([("up".into(), (up, 1)), ("crashed".into(), (third, 3))]);
    use RestartOutcome::{AboveTarget, Crashed, Restarted, Starting};
    assert_eq!(crashed(4, None, "crashed"), of(Restarted, Restarted));
    assert_eq!(crashed(4, None, "down"), of(Restarted, Crashed));
    assert_eq!(crashed(2, None, "crashed"), of(Restarted, AboveTarget));
    assert_eq!(crashed(0, None, "crashed"), of(AboveTarget, AboveTarget));
    assert_eq!(crashed(4, Some(4), "crashed"), of(Starting, Starting));
}
