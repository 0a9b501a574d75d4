use std::collections::BTreeMap;

use super::*;
use crate::make::IdForm;
use crate::make::tests::maker;
use crate::plan::tests::plan;

/// Half resends, a fifth conflicts, in requests of ten of which a tenth are malformed.
fn busy() -> Plan {
    plan(0.5, 0.2, 0.1, 10)
}

/// What is to be taken of these requests.
fn sound(plan: &Plan, requests: u64) -> Vec<Item> {
    let sound = (0..requests).filter(|request| !plan.is_malformed(*request));
    sound
        .flat_map(|request| plan.positions(request))
        .map(|position| plan.item(position))
        .collect()
}

/// What a Sekali that does its work holds after these requests.
fn stored(plan: &Plan, requests: u64) -> Vec<Item> {
    let mut items = sound(plan, requests);
    items.sort_by_key(|item| item.key);
    items.dedup_by_key(|item| item.key);
    items
}

fn line(item: Item) -> (usize, String) {
    let maker = maker(IdForm::V4);
    let mut out = BytesMut::new();
    maker.write(item, &mut out);
    let line = String::from_utf8(out.to_vec()).unwrap();
    (maker.topic_of(item.key), line)
}

fn all(plan: &Plan) -> Vec<(usize, String)> {
    stored(plan, 100).into_iter().map(line).collect()
}

/// The verdict over what is there, after 100 requests.
fn verdict(plan: &Plan, there: &[(usize, String)], not_acknowledged: &[u64]) -> Verdict {
    let maker = maker(IdForm::V4);
    let mut judge = Judge::new(plan, &maker, 1_000, false);
    for (topic, line) in there {
        judge.take(*topic, line.as_bytes());
    }
    judge.finish(not_acknowledged).0
}

#[test]
fn what_was_sent_and_is_there_once_is_good() {
    let there = all(&busy());
    let expected = Verdict {
        expected: there.len() as u64,
        stored: there.len() as u64,
        ..Verdict::default()
    };
    assert_eq!(verdict(&busy(), &there, &[]), expected);
}

#[test]
fn of_two_versions_either_may_have_been_first() {
    let plan = busy();
    let conflict = (0..1_000)
        .filter(|position| !plan.is_malformed(position / 10))
        .map(|position| plan.item(position))
        .find(|item| item.key != item.version)
        .unwrap();
    let original = Item {
        version: conflict.key,
        ..conflict
    };
    for first in [original, conflict] {
        let mut items = stored(&plan, 100);
        items.retain(|item| item.key != conflict.key);
        items.push(first);
        let there: Vec<_> = items.into_iter().map(line).collect();
        let verdict = verdict(&plan, &there, &[]);
        assert_eq!((verdict.missing, verdict.altered), (0, 0), "{verdict:?}");
    }
}

#[test]
fn whatever_differs_from_what_is_stored_is_a_conflict_each_time() {
    let (plan, maker) = (busy(), maker(IdForm::V4));
    let sent = sound(&plan, 100);
    let of_key = |item: &Item| (item.key, item.version);
    let first_won: BTreeMap<_, _> = sent.iter().rev().map(of_key).collect();
    let last_won: BTreeMap<_, _> = sent.iter().map(of_key).collect();
    let conflicts_if = |winners: &BTreeMap<u64, u64>| {
        let mut judge = Judge::new(&plan, &maker, 1_000, false);
        for (&key, &version) in winners {
            let (topic, line) = line(Item { key, version });
            judge.take(topic, line.as_bytes());
        }
        // What was not acknowledged is none, or not surely.
        let (verdict, found) = judge.finish(&[99]);
        assert_eq!((verdict.missing, verdict.altered), (0, 0), "{verdict:?}");
        let mut expected = vec![0; 4];
        for position in (0..990).filter(|position| !plan.is_malformed(position / 10)) {
            let Item { key, version } = plan.item(position);
            expected[maker.topic_of(key)] += u64::from(winners[&key] != version);
        }
        let conflicts: Vec<_> = found.iter().map(|found| found.conflicts).collect();
        assert_eq!(conflicts, expected);
        conflicts.iter().sum::<u64>()
    };
    let (fewer, more) = (conflicts_if(&first_won), conflicts_if(&last_won));
    // Where a conflict won, the original and its resends are what differs.
    assert!(100 < fewer && fewer < more, "{fewer}, {more}");
}

#[test]
fn what_was_acknowledged_and_is_not_there_is_missing() {
    let mut there = all(&busy());
    there.pop();
    there.remove(3);
    let verdict = verdict(&busy(), &there, &[]);
    assert_eq!(verdict.missing, 2);
    assert!(verdict.examples[0].contains("not there"), "{verdict:?}");
}

#[test]
fn what_was_not_acknowledged_may_be_missing_unless_another_copy_was() {
    let unique = plan(0.0, 0.0, 0.0, 10);
    let mut there = all(&unique);
    there.truncate(990);
    assert_eq!(verdict(&unique, &there, &[99]).missing, 0);
    assert_eq!(verdict(&unique, &there, &[98]).missing, 10);

    let plan = busy();
    let resent = (10..1_000)
        .map(|position| plan.item(position).key)
        .find(|key| *key < 10)
        .unwrap();
    let mut items = stored(&plan, 100);
    items.retain(|item| item.key != resent);
    let there: Vec<_> = items.into_iter().map(line).collect();
    assert_eq!(verdict(&plan, &there, &[0]).missing, 1);
}

#[test]
fn what_is_there_twice_is_doubled() {
    let mut there = all(&busy());
    there.push(there[5].clone());
    assert_eq!(verdict(&busy(), &there, &[]).doubled, 1);
}

#[test]
fn what_nobody_sent_or_what_was_refused_is_foreign() {
    let plan = busy();
    let refused = (0..1_000).find(|p| plan.is_malformed(p / 10)).unwrap();
    for position in [refused, 50_000] {
        let mut there = all(&plan);
        there.push(line(Item {
            key: position,
            version: position,
        }));
        assert_eq!(verdict(&plan, &there, &[]).foreign, 1);
    }
    let mut there = all(&plan);
    let (topic, line) = there[0].clone();
    let other_id = line.replacen("\"event_id\":\"", "\"event_id\":\"x", 1);
    there.push((topic, other_id));
    there.push(((topic + 1) % 4, line));
    assert_eq!(verdict(&plan, &there, &[]).foreign, 2);
}

#[test]
fn other_content_than_was_sent_is_altered() {
    for (from, to) in [
        ("\\u00fc", "\u{fc}"),
        ("\"source\":\"", "\"source\":\"x"),
        ("\"timestamp\":\"2026", "\"timestamp\":\"2027"),
        ("{\"n\":", "{\"n\":1"),
        ("{\"n\":", "{\"m\":"),
        ("\"payload\":{", "\"payload\":[],\"was\":{"),
        ("\"payload\":", "\"was\":"),
    ] {
        let mut there = all(&busy());
        let at = there
            .iter()
            .position(|(_, line)| line.contains(from))
            .unwrap();
        there[at].1 = there[at].1.replacen(from, to, 1);
        let verdict = verdict(&busy(), &there, &[]);
        assert_eq!(verdict.altered, 1, "{from}: {verdict:?}");
    }
}

#[test]
fn another_zone_and_white_space_are_no_alteration() {
    let mut there = all(&busy());
    for (_, line) in &mut there {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        let sent = event["timestamp"].as_str().unwrap();
        let utc = Timestamp::parse(sent).unwrap().to_string();
        *line = line
            .replacen(sent, &utc, 1)
            .replacen("{\"n\":", "{ \"n\" : ", 1);
    }
    let verdict = verdict(&busy(), &there, &[]);
    assert_eq!(verdict.stored, there.len() as u64, "{verdict:?}");
}

#[test]
fn what_an_earlier_run_of_the_seed_sent_beyond_this_one_is_not_foreign() {
    let (plan, maker) = (busy(), maker(IdForm::V4));
    let there: Vec<_> = stored(&plan, 200).into_iter().map(line).collect();
    let judged = |ran_before| {
        let mut judge = Judge::new(&plan, &maker, 1_000, ran_before);
        for (topic, line) in &there {
            judge.take(*topic, line.as_bytes());
        }
        judge.finish(&[]).0
    };
    let again = judged(true);
    assert!(again.earlier > 100, "{again:?}");
    assert_eq!((again.foreign, again.altered, again.missing), (0, 0, 0));
    assert!(judged(false).foreign > 100);
}
