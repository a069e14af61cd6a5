//! What happens around the daemon: interfaces that go and come back.

use spa_tests::probe::Probe;
use spa_tests::scene::Scene;
use spa_tests::{Family, Settings, Variant, for_each_variant};

for_each_variant!(an_interface_made_again_is_heard, a_named_interface_made_again_is_heard);

/// A socket that is bound to an interface is deaf for ever after that one is deleted; ours are not bound.
fn heard_again(settings: Settings) {
    let mut scene = Scene::new(&Settings { open_for: "60s", ..settings }, Family::V4);
    let (server, client) = (scene.topology.server.clone(), scene.topology.client.clone());
    for round in 0..3 {
        // With a name configured, the first knock over a new interface only tells that it is there; the next one counts.
        scene.alice.must(&["open", "ssh", "--wait"]);
        scene.wait_open(&client, 22);
        server.unplug();
        assert_eq!(scene.look(&client, 22), Probe::Silent, "round {round}: there is no way to it");
        server.plug_in();
        // The grant is for an address: it holds wherever that comes in from.
        scene.wait_open(&client, 22);
        scene.server.must(&["revoke", "--all"]);
        assert_eq!(scene.look(&client, 22), Probe::Silent, "round {round}: revoked");
    }
    scene.alice.must(&["open", "ssh", "--wait"]);
    scene.wait_open(&client, 22);
    assert_eq!(scene.look(&scene.topology.stranger, 22), Probe::Silent);
    assert_eq!(scene.server.status()["state"], "ok");
    scene.server.process().stop();
}

fn an_interface_made_again_is_heard(variant: Variant) {
    heard_again(Settings::new(variant));
}

fn a_named_interface_made_again_is_heard(variant: Variant) {
    heard_again(Settings { server: "interfaces = [\"eth0\"]\n".into(), ..Settings::new(variant) });
}
