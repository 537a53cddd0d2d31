//! Tests of the kernel crate on a real kernel, in network namespaces of this program or in labs that it starts.
//!
//! Tests are selected by name as with libtest. Tests this machine cannot run are ignored with the reason, see
//! [`needs`].

mod common;
mod conntrack_entries;
mod conntrack_events;
mod delay_lines;
mod kmsg_log;
mod needs;
mod net_links;
mod net_routes;
mod net_settings;
mod net_sockets;
mod nft_effects;
mod nft_rules;
mod packet_capture;
mod process_lab;
#[path = "../../tests/support/skips.rs"]
mod skips;
mod sockdiag_sockets;

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    process_lab::run_as_child();
    let arguments = Arguments::from_args();
    let trials = [
        conntrack_entries::tests(),
        conntrack_events::tests(),
        delay_lines::tests(),
        delay_lines::bench(),
        kmsg_log::tests(),
        net_links::tests(),
        net_routes::tests(),
        net_settings::tests(),
        net_sockets::tests(),
        nft_effects::tests(),
        nft_rules::tests(),
        packet_capture::tests(),
        process_lab::tests(),
        process_lab::repeated(),
        sockdiag_sockets::tests(),
    ];
    skips::run(&arguments, trials.into_iter().flatten().collect()).exit_code()
}
