//! The recorder writes what is ours, only what is new, and never over another relay.

use std::sync::Arc;

use serde_json::json;

use super::api::{FakeApi, listener_path};
use super::*;
use crate::binding::record::{KubeRecorder, Step, decide};
use crate::binding::status::status_of;
use crate::relay::{RecordError, Recorder};

fn recorder(api: &FakeApi, desk: &Desk, object: &SsmListener) -> Arc<KubeRecorder> {
    Arc::new(KubeRecorder::new(api.listeners(), desk.clone(), object.clone()).unwrap())
}

#[tokio::test]
async fn a_report_becomes_the_status_and_is_not_written_twice() {
    let api = FakeApi::start().await;
    let object = api.put_listener(&listener("l"));
    let recorder = recorder(&api, &desk(), &object);
    let serving = report(State::Serving);

    recorder.record(&serving).await.unwrap();
    assert_eq!(
        api.listener("l").status,
        Some(status_of(&serving, &writer()))
    );
    recorder.record(&serving).await.unwrap();
    assert_eq!(
        api.take_requests(),
        ["PUT ssm-system/ssmlisteners/l/status"]
    );
}

#[tokio::test]
async fn a_status_whose_answer_can_not_be_read_as_a_whole_is_recorded() {
    let api = FakeApi::start().await;
    let mut object = api.put_listener(&listener("l"));
    let recorder = recorder(&api, &desk(), &object);
    let mut labelled = serde_json::to_value(&object).unwrap();
    labelled["metadata"]["labels"] = json!(false);
    let path = listener_path("l");
    let stored = api.put(&path, labelled);
    let version = stored["metadata"]["resourceVersion"].as_str();
    object.metadata.resource_version = version.map(str::to_owned);
    recorder.observe(&object);

    for state in [State::Starting, State::Serving] {
        recorder.record(&report(state)).await.unwrap();
    }
    let stored = api.object(&path).unwrap();
    assert_eq!(stored["status"]["state"], "Serving");
    assert_eq!(
        api.take_requests(),
        ["PUT ssm-system/ssmlisteners/l/status"; 2]
    );
}

#[tokio::test]
async fn a_claim_is_written_even_if_it_says_nothing_new() {
    let api = FakeApi::start().await;
    let object = api.put_listener(&listener("l"));
    let recorder = recorder(&api, &desk(), &object);
    recorder.record(&report(State::Starting)).await.unwrap();
    recorder.record(&report(State::Starting)).await.unwrap();
    assert_eq!(api.take_requests().len(), 2);
}

#[tokio::test]
async fn a_listener_that_was_moved_meanwhile_is_read_again_and_left_alone() {
    let api = FakeApi::start().await;
    let ours = api.put_listener(&listener("l"));
    let recorder = recorder(&api, &desk(), &ours);
    let mut moved = recorded_by(ours, "relay-1", "other-run", 10_300);
    moved.spec.relay = Some("relay-1".into());
    let moved = api.put_listener(&moved);

    let result = recorder.record(&report(State::Starting)).await;
    assert_eq!(result, Err(RecordError::NotOurs));
    assert_eq!(api.listener("l"), moved);
    assert!(recorder.has_given_up());
    assert_eq!(
        api.take_requests(),
        [
            "PUT ssm-system/ssmlisteners/l/status",
            "GET ssm-system/ssmlisteners/l"
        ]
    );
    assert_eq!(
        recorder.record(&report(State::Ended)).await,
        Err(RecordError::NotOurs)
    );
    assert!(api.take_requests().is_empty(), "it asks nobody any more");
}

#[tokio::test]
async fn a_spec_that_changed_meanwhile_keeps_its_change() {
    let api = FakeApi::start().await;
    let mut object = api.put_listener(&listener("l"));
    let recorder = recorder(&api, &desk(), &object);
    object.spec.target = "i-11111111111111111".into();
    object.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
    api.put_listener(&object);

    recorder.record(&report(State::Serving)).await.unwrap();
    let stored = api.listener("l");
    assert_eq!(stored.spec.target, "i-11111111111111111");
    assert_eq!(stored.metadata.labels, object.metadata.labels);
    assert_eq!(stored.status.unwrap().relay, RELAY);
}

#[tokio::test]
async fn a_listener_that_is_gone_or_was_made_anew_is_not_ours() {
    let api = FakeApi::start().await;
    let object = api.put_listener(&listener("l"));
    let late = recorder(&api, &desk(), &object);
    api.delete_listener("l");
    assert_eq!(
        late.record(&report(State::Starting)).await,
        Err(RecordError::NotOurs)
    );

    let mut anew = listener("l");
    anew.metadata.uid = Some("another".into());
    let anew = api.put_listener(&anew);
    let late = recorder(&api, &desk(), &object);
    assert_eq!(
        late.record(&report(State::Starting)).await,
        Err(RecordError::NotOurs)
    );
    assert_eq!(api.listener("l"), anew);
}

#[tokio::test]
async fn a_listener_that_went_to_another_run_and_came_back_is_given_up() {
    let api = FakeApi::start().await;
    let object = api.put_listener(&listener("l"));
    let recorder = recorder(&api, &desk(), &object);
    recorder.record(&report(State::Serving)).await.unwrap();
    let between = api.put_listener(&recorded_by(api.listener("l"), "relay-1", "run-9", 10_300));

    let result = recorder.record(&report(State::Waiting)).await;
    assert_eq!(result, Err(RecordError::NotOurs));
    assert_eq!(api.listener("l"), between);
}

#[tokio::test]
async fn the_watch_tells_a_recorder_that_it_was_overtaken_but_old_news_do_not() {
    let api = FakeApi::start().await;
    let before = api.put_listener(&recorded_by(listener("l"), RELAY, "run-1", 10_240));
    let recorder = recorder(&api, &desk(), &before);
    recorder.record(&report(State::Starting)).await.unwrap();
    recorder.observe(&before);
    assert!(
        !recorder.has_given_up(),
        "what was written before our claim is no news"
    );

    let after = api.put_listener(&recorded_by(api.listener("l"), "relay-1", "run-9", 10_300));
    recorder.observe(&after);
    assert!(recorder.has_given_up());
}

#[tokio::test]
async fn an_api_server_that_is_away_costs_a_report_and_not_the_listener() {
    let api = FakeApi::start().await;
    let object = api.put_listener(&listener("l"));
    let recorder = recorder(&api, &desk(), &object);
    api.set_away(true);
    let error = recorder.record(&report(State::Serving)).await.unwrap_err();
    let RecordError::Unavailable(words) = &error else {
        panic!("{error}")
    };
    assert!(
        words.contains("the fake says InternalError (500)"),
        "{words}"
    );
    api.set_away(false);
    recorder.record(&report(State::Serving)).await.unwrap();
}

#[tokio::test]
async fn a_run_that_was_overtaken_writes_nothing() {
    let api = FakeApi::start().await;
    let object = api.put_listener(&listener("l"));
    let desk = desk();
    let recorder = recorder(&api, &desk, &object);
    desk.fenced.cancel();
    let result = recorder.record(&report(State::Ended)).await;
    assert_eq!(result, Err(RecordError::NotOurs));
    assert!(api.take_requests().is_empty());
}

#[test]
fn a_first_claim_takes_over_what_an_earlier_run_left() {
    let object = recorded_by(listener("l"), RELAY, "run-1", 10_240);
    let claim = report(State::Starting);
    let step = decide(&object, "uid-l", false, &claim, &writer());
    assert_eq!(step, Step::Write(Box::new(status_of(&claim, &writer()))));
    assert_eq!(
        decide(&object, "uid-l", true, &claim, &writer()),
        Step::NotOurs
    );
}

#[tokio::test]
async fn a_claim_on_a_listener_that_is_being_deleted_is_refused_and_its_end_is_written() {
    let api = FakeApi::start().await;
    let object = api.put_listener(&listener("l"));
    let recorder = recorder(&api, &desk(), &object);
    api.put_listener(&deleted(object));

    let claim = recorder.record(&report(State::Starting)).await;
    let Err(RecordError::Unavailable(words)) = claim else {
        panic!("{claim:?}")
    };
    assert!(words.contains("being deleted"), "{words}");
    let tried = [
        "PUT ssm-system/ssmlisteners/l/status",
        "GET ssm-system/ssmlisteners/l",
    ];
    assert_eq!(api.take_requests(), tried);
    assert_eq!(api.listener("l").status, None);

    for state in [State::Waiting, State::Ended] {
        recorder.record(&report(state)).await.unwrap();
        assert_eq!(
            api.listener("l").status,
            Some(status_of(&report(state), &writer()))
        );
    }
}

#[tokio::test]
async fn a_session_that_was_started_just_before_the_deletion_is_recorded_and_leads_to_no_more() {
    let api = FakeApi::start().await;
    let object = api.put_listener(&listener("l"));
    let recorder = recorder(&api, &desk(), &object);
    recorder.record(&report(State::Starting)).await.unwrap();
    api.put_listener(&deleted(api.listener("l")));

    let opening = Report {
        sessions: vec![session("user-1")],
        ..report(State::Starting)
    };
    for _ in 0..2 {
        let refused = recorder.record(&opening).await;
        assert!(
            matches!(refused, Err(RecordError::Unavailable(_))),
            "{refused:?}"
        );
    }
    assert_eq!(
        api.listener("l").status,
        Some(status_of(&opening, &writer()))
    );
}

#[tokio::test]
async fn a_record_that_changed_before_the_claim_is_not_written_over() {
    let api = FakeApi::start().await;
    let object = api.put_listener(&listener("l"));
    let by_conflict = recorder(&api, &desk(), &object);
    let by_watch = recorder(&api, &desk(), &object);
    let last_word = api.put_listener(&recorded_by(object, RELAY, "run-1", 10_240));

    by_watch.observe(&last_word);
    assert!(by_watch.has_given_up());
    let claim = by_conflict.record(&report(State::Starting)).await;
    assert_eq!(claim, Err(RecordError::NotOurs));
    assert!(by_conflict.has_given_up());
    assert_eq!(api.listener("l"), last_word);

    let begun_anew = recorder(&api, &desk(), &last_word);
    begun_anew.record(&report(State::Starting)).await.unwrap();
}

#[tokio::test]
async fn a_claim_whose_answer_was_lost_is_known_again() {
    let api = FakeApi::start().await;
    let object = api.put_listener(&listener("l"));
    let recorder = recorder(&api, &desk(), &object);
    let mut written = object;
    written.status = Some(status_of(&report(State::Starting), &writer()));
    api.put_listener(&written);
    recorder.record(&report(State::Starting)).await.unwrap();
    assert!(!recorder.has_given_up());
}
