//! Settings, and snapshots of the machine.

use relapse_kernel::host::{Snapshot, conntrack_count, diff, network_namespaces, raise_nofile};
use relapse_kernel::route::{Route, Rule};
use relapse_kernel::sysctl::{apply, lab_settings, read, read_host, write, write_all};
use relapse_kernel::{Error, NetNs, link, route};

use crate::common::{add_route, add_rule, add_veth, join, namespace, namespaces};
use crate::needs::tests;

tests! {
    namespaces => [
        a_lab_has_all_its_settings,
        settings_belong_to_their_namespace,
        lists_and_dotted_names_and_errors,
        snapshots_tell_what_was_left_behind,
    ],
    nothing => [
        the_machine_is_described,
        namespaces_of_processes_are_found,
        the_limit_of_files_is_raised_or_refused,
    ],
}

const fn nothing() -> Result<(), String> {
    Ok(())
}

fn a_lab_has_all_its_settings() {
    for forward in [false, true] {
        let ns = NetNs::create("settings").expect("made");
        let settings = lab_settings(forward);
        let absent = apply(&ns, &settings).expect("applied");
        for setting in settings.iter().filter(|s| !absent.contains(s)) {
            assert_eq!(read(&ns, setting.key).expect("read"), setting.value, "{}", setting.key);
        }
    }
}

fn settings_belong_to_their_namespace() {
    let (a, b) = (NetNs::create("a").expect("made"), NetNs::create("b").expect("made"));
    let machine = read_host("net.ipv4.ip_default_ttl").expect("read");
    write(&a, "net.ipv4.ip_default_ttl", "33").expect("written");
    assert_eq!(read(&a, "net.ipv4.ip_default_ttl").expect("read"), "33");
    assert_ne!(read(&b, "net.ipv4.ip_default_ttl").expect("read"), "33");
    assert_eq!(read_host("net.ipv4.ip_default_ttl").expect("read"), machine);
}

fn lists_and_dotted_names_and_errors() {
    let (a, b) = (namespace("a", false), namespace("b", false));
    add_veth((&a, "eth0.1", 7, [2, 0, 0, 0, 0, 1]), (&b, "eth0.1", 8, [2, 0, 0, 0, 0, 2]), 1500).expect("a pair");
    write_all(&a, &[("net.ipv4.ip_local_port_range", "40000 40010"), ("net/ipv4/conf/eth0.1/rp_filter", "2")])
        .expect("written");
    assert_eq!(read(&a, "net.ipv4.ip_local_port_range").expect("read"), "40000 40010");
    assert_eq!(read(&a, "net/ipv4/conf/eth0.1/rp_filter").expect("read"), "2");
    assert_eq!(write(&a, "net.ipv4.nothing", "1").expect_err("none").errno(), Some(libc::ENOENT));
    assert_eq!(write(&a, "net.ipv4.ip_default_ttl", "900").expect_err("too large").errno(), Some(libc::EINVAL));
    // Accepted, but read back in another form.
    let kept = write(&a, "net.ipv4.ip_local_reserved_ports", "80,81").expect_err("not as written");
    assert!(kept.to_string().ends_with("read back 80-81"), "{kept}");
    assert!(matches!(&kept, Error::NotInForce { .. }), "{kept}");
}

fn snapshots_tell_what_was_left_behind() {
    let (a, b) = (namespace("a", false), namespace("b", false));
    let before = Snapshot::of_namespace(&a, vec![]).expect("taken");
    let (left, right) = join(&a, &b, 1, 1500);
    add_route(&a, &Route::default_via(right.address).dev(left.index).table(2)).expect("added");
    add_rule(&a, &Rule::ipv4(100).from(left.address, 32).table(2)).expect("added");
    let after = Snapshot::of_namespace(&a, vec!["inet relapse-x".into()]).expect("taken");
    let changes: Vec<String> =
        diff(&before, &after).iter().map(ToString::to_string).filter(|d| !d.contains("::")).collect();
    assert_eq!(
        changes,
        [
            "address 10.0.1.1/24 on net1 appeared: present",
            "link net1 appeared: up, mtu 1500, mac 02:00:00:00:01:01",
            "nft table inet relapse-x appeared: present",
            "route 0.0.0.0/0 metric 0 in table 2 appeared: unicast via 10.0.1.2 dev net1 proto 4",
            "route 10.0.1.0/24 metric 0 in table 254 appeared: unicast dev net1 proto 4",
            "rule 100 appeared: ipv4 from 10.0.1.1/32 lookup 2",
        ]
    );
    link::delete(&a, left.index).expect("deleted");
    route::delete_rule(&a, &Rule::ipv4(100).from(left.address, 32).table(2)).expect("deleted");
    let restored = Snapshot::of_namespace(&a, vec![]).expect("taken");
    assert_eq!(diff(&before, &restored), []);
}

fn the_machine_is_described() {
    let snapshot = Snapshot::take(vec![]).expect("taken");
    for fact in ["link lo", "setting net.ipv4.ip_forward", "setting net.ipv4.conf.all.rp_filter"] {
        assert!(snapshot.facts.contains_key(fact), "{fact}");
    }
}

fn namespaces_of_processes_are_found() {
    let own = NetNs::own("own").expect("opened");
    let found = network_namespaces().expect("listed");
    let here = found.iter().find(|n| n.inode == own.inode()).expect("this process has one");
    assert_eq!(here.open().expect("opened").inode(), own.inode());
    assert!(conntrack_count(&own).is_ok());
}

fn the_limit_of_files_is_raised_or_refused() {
    let now = raise_nofile(64).expect("64 are always allowed");
    assert!(now >= 64);
    // Above the kernel's limit for any process (fs.nr_open).
    let refused = raise_nofile(1 << 40).expect_err("too many");
    assert!(refused.to_string().contains("open files"), "{refused}");
}
