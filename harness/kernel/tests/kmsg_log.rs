//! Following the kernel log. The test writes one line to it, as `logger -k` would.

use std::fs::File;
use std::time::Duration;

use relapse_kernel::clock;
use relapse_kernel::kmsg::KernelLog;

use crate::needs::tests;

tests! {
    the_log => [a_new_line_is_read_with_its_time],
}

fn the_log() -> Result<(), String> {
    KernelLog::file().map_err(|e| format!("failed to {e}"))?;
    File::options().write(true).open("/dev/kmsg").map(drop).map_err(|e| format!("failed to write to /dev/kmsg: {e}"))
}

#[tokio::main(flavor = "current_thread")]
async fn a_new_line_is_read_with_its_time() {
    let mut log = KernelLog::file().and_then(KernelLog::from_file).expect("opened");
    let text = format!("relapse: test of the kernel log {}", std::process::id());
    let before = clock::now();
    // Without the newline the record stays open for continuation and is not delivered.
    std::fs::write("/dev/kmsg", format!("{text}\n")).expect("written");
    let line = tokio::time::timeout(Duration::from_secs(2), async {
        loop {
            let line = log.next().await.expect("read");
            if line.text.contains(&text) {
                return line;
            }
        }
    })
    .await
    .expect("the line in time");
    assert_eq!(line.text, text);
    assert!(line.at >= before && line.at <= clock::now(), "{before} {}", line.at);
    assert_eq!(log.lost(), 0);
}
