//! The kernel log, read as it grows. The test writes one line into it, as `logger -k` would.

use std::time::Duration;

use relapse_kernel::clock;
use relapse_kernel::kmsg::KernelLog;

#[tokio::test]
async fn a_new_line_is_read_with_its_time() {
    if !rustix::process::geteuid().is_root() {
        assert!(!std::env::var("RELAPSE_REQUIRE").unwrap_or_default().contains("netns"), "needs root");
        let error = KernelLog::open().err().map(|error| error.to_string());
        eprintln!("skipped: needs root ({error:?})");
        return;
    }
    let mut log = KernelLog::open().expect("opened");
    let text = format!("relapse: test of the kernel log {}", std::process::id());
    let before = clock::now();
    // Without the end of line the record stays open for more, and is shown to nobody.
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
    .expect("it comes");
    assert_eq!(line.text, text);
    assert!(line.at >= before && line.at <= clock::now(), "{before} {}", line.at);
    assert_eq!(log.lost(), 0);
}

#[test]
fn refusal_says_what_is_needed() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    let _inside = runtime.enter();
    if let Err(error) = KernelLog::open() {
        assert!(error.to_string().contains("needs root"), "{error}");
    }
}
