//! Builds again when a scenario or a kind configuration comes or goes: the program carries them.

fn main() {
    for folder in ["../scenarios", "../kind-configs"] {
        println!("cargo:rerun-if-changed={folder}");
    }
}
