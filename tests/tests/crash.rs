//! Fail closed: no end of the daemon leaves a port open past its expiry, or takes the protection away.

use std::time::{Duration, Instant};

use spa_tests::probe::{PATIENCE, Probe, eventually};
use spa_tests::scene::{CLOSES_WITHIN, Scene};
use spa_tests::{Family, Settings, Variant, for_each_variant_and_family};

for_each_variant_and_family!(grants_end_after_kill, grants_end_after_a_stop, a_restart_adopts_the_grants);

const OPEN_FOR: Duration = Duration::from_secs(4);

fn scene(variant: Variant, family: Family) -> (Scene, Instant) {
    let scene = Scene::new(&Settings { open_for: "4s", ..Settings::new(variant) }, family);
    scene.alice.open("ssh");
    let opened = Instant::now();
    scene.wait_open(&scene.topology.client, 22);
    (scene, opened)
}

/// With no daemon: open for the rest of its time, closed within two seconds of it, to everybody else all along.
fn ends_by_itself(scene: &Scene, opened: Instant) {
    let (client, stranger) = (&scene.topology.client, &scene.topology.stranger);
    assert_eq!(scene.look(client, 22), Probe::Open, "the grant lives on");
    assert_eq!(scene.looks(&[(stranger, 22), (client, 80)]), [Probe::Silent; 2], "so does the protection");
    let left = (opened + OPEN_FOR + CLOSES_WITHIN).saturating_duration_since(Instant::now());
    scene.wait_closed(left);
    assert!(opened.elapsed() >= OPEN_FOR - Duration::from_millis(100), "not before its time either");
    assert_eq!(scene.looks(&[(stranger, 22), (client, 80)]), [Probe::Silent; 2]);
}

fn grants_end_after_kill(variant: Variant, family: Family) {
    let (mut scene, opened) = scene(variant, family);
    scene.server.process().kill();
    ends_by_itself(&scene, opened);
}

fn grants_end_after_a_stop(variant: Variant, family: Family) {
    let (mut scene, opened) = scene(variant, family);
    let status = scene.server.process().stop();
    assert!(status.success(), "{status}\n{}", scene.server.log());
    ends_by_itself(&scene, opened);
}

fn a_restart_adopts_the_grants(variant: Variant, family: Family) {
    let (mut scene, opened) = scene(variant, family);
    scene.server.process().kill();
    scene.server.start();
    let grants = scene.server.grants();
    assert_eq!(grants.len(), 1, "{grants:?}");
    assert_eq!(scene.server.grant_rules(family).len(), 1);
    ends_by_itself(&scene, opened);
    eventually("the rule goes too", PATIENCE, || scene.server.grant_rules(family).is_empty());
}
