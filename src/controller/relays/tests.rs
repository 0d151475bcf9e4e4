//! What is promised of relays' lives; time is an argument, so nothing here waits.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

struct World {
    relays: Relays,
    leases: BTreeMap<String, LeaseSeen>,
    renewals: u32,
    now: Instant,
}

impl World {
    /// All relays seen alive.
    fn with(names: &[&str]) -> Self {
        let relays = Relays::new(60 * SECOND, 12 * SECOND);
        let mut world = Self {
            relays,
            leases: BTreeMap::new(),
            renewals: 0,
            now: Instant::now(),
        };
        world.after(0);
        for name in names {
            world.renew(name, "one");
        }
        world.after(0);
        world
    }

    fn renew(&mut self, name: &str, incarnation: &str) {
        self.renewals += 1;
        let lease = LeaseSeen {
            name: name.to_owned(),
            incarnation: Some(incarnation.to_owned()),
            duration: 12 * SECOND,
            renewed: self.renewals.to_string(),
            capacity: 10,
            resource_version: Some(self.renewals.to_string()),
        };
        self.leases.insert(name.to_owned(), lease);
    }

    fn release(&mut self, name: &str) {
        self.leases
            .get_mut(name)
            .expect("a relay of this world")
            .incarnation = None;
    }

    fn after(&mut self, seconds: u64) -> RelaysView {
        self.now += Duration::from_secs(seconds);
        self.relays
            .handle_leases(self.leases.values().cloned().collect(), self.now);
        self.relays
            .poll_view(self.now)
            .expect("the API server is there")
    }
}

#[test]
fn a_relay_lives_while_its_lease_is_renewed_and_dies_when_it_is_not() {
    let mut world = World::with(&["a", "b"]);
    for _ in 0..10 {
        world.renew("a", "one");
        world.renew("b", "one");
        assert!(world.after(4).is_alive("a"));
    }
    for _ in 0..3 {
        world.renew("b", "one");
        assert!(!world.after(4).is_gone("a"));
    }
    let view = world.after(1);
    assert!(view.is_gone("a") && view.may_move_from("a"));
    assert!(!view.serves("a", "one") && view.serves("b", "one"));
}

#[test]
fn a_released_lease_is_gone_at_once() {
    let mut world = World::with(&["a", "b"]);
    world.release("a");
    let view = world.after(0);
    assert!(view.may_move_from("a") && !view.serves("a", "one"));
}

#[test]
fn all_relays_may_be_released_without_a_pause() {
    let mut world = World::with(&["a", "b"]);
    world.release("a");
    world.release("b");
    let view = world.after(0);
    assert!(view.may_move_from("a") && view.may_move_from("b"));
}

#[test]
fn another_incarnation_of_the_same_relay_is_alive_and_the_old_one_serves_nothing() {
    let mut world = World::with(&["a"]);
    world.renew("a", "two");
    let view = world.after(1);
    assert!(view.is_alive("a") && view.serves("a", "two") && !view.serves("a", "one"));
}

#[test]
fn a_lease_found_at_the_start_serves_and_is_bound_to_only_once_it_was_renewed() {
    let mut world = World::with(&[]);
    world.relays = Relays::new(60 * SECOND, 12 * SECOND);
    world.renew("a", "one");
    let view = world.after(0);
    assert!(view.serves("a", "one") && !view.is_alive("a"));
    world.renew("a", "one");
    assert!(world.after(4).is_alive("a"));
}

#[test]
fn a_stale_lease_found_at_the_start_does_not_pause_moves() {
    let mut world = World::with(&[]);
    world.relays = Relays::new(60 * SECOND, 12 * SECOND);
    world.renew("a", "one");
    world.after(0);
    world.renew("b", "one");
    world.after(5);
    world.renew("b", "one");
    assert!(world.after(8).may_move_from("a"));
}

#[test]
fn when_more_than_half_die_at_once_nothing_is_moved_for_a_minute() {
    let mut world = World::with(&["a", "b", "c"]);
    world.renew("c", "one");
    let view = world.after(12);
    assert!(!view.is_gone("a"));
    world.renew("c", "one");
    let view = world.after(1);
    assert!(!view.acts("a") && !view.acts("b") && !view.may_move_from("a"));
    for _ in 0..5 {
        world.renew("c", "one");
        assert!(!world.after(11).may_move_from("a"));
    }
    world.renew("c", "one");
    assert!(world.after(6).may_move_from("a"));
}

#[test]
fn while_moves_are_paused_what_looks_dead_still_serves_and_afterwards_it_does_not() {
    let mut world = World::with(&["a", "b"]);
    world.after(12);
    let view = world.after(1);
    assert!(view.moves_paused && !view.acts("a"));
    assert!(view.serves("a", "one") && !view.is_gone("a"));
    assert!(!view.serves("a", "two") && !view.is_alive("a"));

    world.release("b");
    let view = world.after(0);
    assert!(!view.serves("b", "one") && view.is_gone("b"));

    let view = world.after(60);
    assert!(!view.serves("a", "one") && view.is_gone("a"));
}

#[test]
fn half_of_the_relays_may_die_without_a_pause() {
    let mut world = World::with(&["a", "b"]);
    world.after(12);
    world.renew("b", "one");
    assert!(world.after(1).may_move_from("a"));
}

#[test]
fn the_only_relay_dies_and_its_successor_ends_the_pause() {
    let mut world = World::with(&["a"]);
    assert!(!world.after(13).may_move_from("a"));
    world.renew("b", "one");
    let view = world.after(1);
    assert!(view.is_alive("b") && view.may_move_from("a"));
}

#[test]
fn nobody_dies_while_the_api_server_is_out_of_reach_nor_right_after() {
    let mut world = World::with(&["a"]);
    world.relays.handle_unreachable();
    world.now += 600 * SECOND;
    assert_eq!(world.relays.poll_view(world.now), None);
    assert!(world.after(0).acts("a"));
    assert!(world.after(12).acts("a"));
    assert!(!world.after(1).acts("a"));
}

#[test]
fn a_relay_without_a_lease_is_gone_once_the_leases_are_known_for_a_while() {
    let mut world = World::with(&[]);
    assert!(!world.after(11).is_gone("x"));
    assert!(world.after(1).may_move_from("x"));
}

#[test]
fn a_lease_that_somebody_deleted_does_not_kill_its_relay_at_once() {
    let mut world = World::with(&["a"]);
    world.leases.clear();
    assert!(!world.after(5).is_gone("a"));
    world.renew("a", "one");
    assert!(world.after(5).is_alive("a"));
}

#[test]
fn dead_leases_are_left_over_after_a_while_and_forgotten_once_deleted() {
    let mut world = World::with(&["a", "b"]);
    for _ in 0..6 {
        world.renew("b", "one");
        world.after(12);
    }
    assert!(
        world
            .relays
            .poll_leftovers(60 * SECOND, world.now)
            .is_empty()
    );
    world.renew("b", "one");
    world.after(12);
    let leftovers = world.relays.poll_leftovers(60 * SECOND, world.now);
    assert_eq!(leftovers, [("a".to_owned(), Some("1".to_owned()))]);
    world.leases.remove("a");
    world.renew("b", "one");
    assert!(!world.after(1).relays.contains_key("a"));
}

#[test]
fn relays_are_full_when_each_living_one_has_all_that_it_takes() {
    let view = World::with(&["a", "b"]).after(0);
    let of = |a: usize, b: usize| [vec!["a"; a], vec!["b"; b]].concat();
    assert!(!view.are_full(of(0, 0)) && !view.are_full(of(10, 9)));
    assert!(view.are_full(of(10, 10)) && view.are_full(of(11, 12)));
    assert!(!RelaysView::default().are_full(of(1, 1)), "none is alive");
}
