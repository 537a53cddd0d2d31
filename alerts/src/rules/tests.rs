use std::fs;
use std::path::Path;

use super::*;
use crate::rule::{Rule, Severity, What};

fn from(text: &str) -> Result<RuleSet, Diagnostics> {
    let (mut set, mut wrong) = (RuleSet::default(), Diagnostics::default());
    read_source(&Source::new("rules.yaml", text), &mut set, &mut wrong);
    reach::through_recording_rules(&mut set);
    wrong.into_result(set)
}

fn names(set: &RuleSet) -> Vec<&str> {
    set.rules.iter().map(Rule::name).collect()
}

#[test]
fn a_rule_file_of_prometheus() {
    let set = from(
        "groups:
- name: net
  interval: 30s
  limit: 10
  query_offset: 1m
  labels: { team: net, severity: info }
  partial_response_strategy: warn
  rules:
  - record: node:drops:rate5m
    expr: rate(node_network_receive_drop_total[5m])
  - alert: Drops
    expr: node:drops:rate5m > 10
    for: 1h30m
    keep_firing_for: 5m
    labels:
      severity: page
      number: 01
      yes: true
      who: '{{ $labels.instance }}'
    annotations: { summary: 'at {{ $value }}' }
",
    )
    .unwrap();
    let group = &set.groups[0];
    assert_eq!((group.interval.unwrap().as_secs(), group.query_offset.as_secs()), (30, 60));
    let [record, alert] = &set.rules[..] else { panic!() };
    assert_eq!((record.line, alert.line), (9, 11));
    assert_eq!(record.what, What::Record { name: "node:drops:rate5m".into() });
    let wait = std::time::Duration::from_secs(5400);
    let keep_firing = std::time::Duration::from_secs(300);
    assert_eq!(alert.what, What::Alert { name: "Drops".into(), wait, keep_firing, severity: Severity::Critical });
    let labels: Vec<_> = alert.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(labels, ["number=01", "severity=page", "team=net", "who={{ $labels.instance }}", "yes=true"]);
    // The range of the recording rule.
    assert_eq!(alert.reach.as_secs(), 300);
    let by_pattern =
        "- name: a\n  rules: [{record: a:b, expr: 'rate(c[1h])'}, {alert: A, expr: '{__name__=~\"a:.*\"} > 1'}]";
    let set = from(&format!("groups:\n{by_pattern}\n")).unwrap();
    assert_eq!(set.rules[1].reach.as_secs(), 3600);
    assert_eq!(set.files, 1);
}

#[test]
fn a_byte_order_mark_and_windows_line_ends() {
    let set = from("\u{feff}groups:\r\n- name: a\r\n  rules:\r\n  - alert: A\r\n    expr: |\r\n      up\r\n      == 0\r\n---\r\nkind: X\r\n").unwrap();
    assert_eq!(set.rules[0].expr, "up\n== 0\n");
    assert_eq!(set.skipped["X"], 1);
}

#[test]
fn many_documents_lists_and_other_kinds() {
    let object = |name: &str| {
        format!("{{kind: PrometheusRule, spec: {{groups: [{{name: g, rules: [{{alert: {name}, expr: up == 0}}]}}]}}}}")
    };
    let text = format!(
        "# Source: a.yaml\n{}\n---\nkind: ServiceMonitor\nspec: {{ x: 1 }}\n---\n---\n# nothing\n--- # b\n{}\n...\n---\n\
         kind: List\nitems: [{}, {{kind: ServiceMonitor}}, {{kind: Secret}}]\n---\ngroups: []\n---\nx: 1\n",
        object("A"),
        object("B"),
        object("C")
    );
    let set = from(&text).unwrap();
    assert_eq!(names(&set), ["A", "B", "C"]);
    let skipped: Vec<_> = set.skipped.iter().map(|(kind, n)| format!("{kind} {n}")).collect();
    assert_eq!(skipped, ["Secret 1", "ServiceMonitor 2", "other 1"]);
    let lines: Vec<_> = set.rules.iter().map(|rule| rule.line).collect();
    assert_eq!(lines, [2, 10, 14]);
}

#[test]
fn json_of_jsonnet_and_kubectl() {
    let jsonnet = "{\n\t\"prometheusAlerts\": {\n\t\t\"groups\": [{\"name\": \"a\", \"rules\": [{\"alert\": \"A\", \
                   \"expr\": \"up{job=\\\"x\\/y\\\"} == 0\\n\", \"for\": \"5m\"}]}]},\n \"grafanaDashboards\": {\"x\": {}}}";
    assert_eq!(from(jsonnet).unwrap().rules[0].expr, "up{job=\"x/y\"} == 0\n");
    let kubectl = r#"{"apiVersion":"v1","kind":"List","items":[{"kind":"PrometheusRule","spec":{"groups":[
        {"name":"g","rules":[{"record":"a:b","expr":"1"}]}]}}]}"#;
    assert_eq!(names(&from(kubectl).unwrap()), ["a:b"]);
    assert_eq!(names(&from(&format!("[{kubectl}]")).unwrap()), ["a:b"]);
}

#[test]
fn rule_files_in_config_maps_keep_their_lines() {
    let set = from(
        "kind: ConfigMap
metadata: { name: rules }
data:
  prometheus.yml: |
    global: {}
  alerting_rules.yml: |
    ---
    # Two rules.
    groups:
    - name: a
      rules:
      - alert: A
        expr: |
          up
          == 0
      - alert: B
        expr: up == 1
  recording_rules.yml: |
    {}
  dashboard.json: '{\"groups\": []}'
  quoted.rules: \"groups:\\n- name: q\\n  rules:\\n  - {alert: C, expr: up}\\n\"
---
kind: ConfigMap
data: { groups: none, x.yaml: 'a: groups' }
",
    )
    .unwrap();
    let places: Vec<_> =
        set.rules.iter().map(|rule| format!("{}:{} {} {:?}", rule.file, rule.line, rule.name(), rule.expr)).collect();
    insta::assert_snapshot!(places.join("\n"));
    assert_eq!((set.files, set.skipped["ConfigMap"]), (1, 1));
}

#[test]
fn errors_in_config_maps_have_their_place() {
    let wrong = from(
        "kind: ConfigMap
data:
  a.yaml: |
    groups:
    - name: a
      rules:
      - alert: A
        expr: up
        for: soon
  b.yml: |-
    groups:
    - name: a
     rules: []
  c.rules: \"groups:\\n- name: q\\n  rules: none\\n\"
  d.yaml: |
    groups:
    {{- if .Values.rules }}
    - name: b
    {{- end }}
",
    )
    .unwrap_err();
    insta::assert_snapshot!(wrong.plain());
}

#[test]
fn anchors_and_merge_keys_are_expanded() {
    let set = from(
        "groups:
- name: a
  rules:
  - &first
    alert: A
    expr: up == 0
    labels: &labels { severity: none, number: &number 5 }
  - { <<: *first, for: 5m }
  - alert: A
    expr: up == 1
    labels: { <<: *labels, x: *number }
",
    )
    .unwrap();
    assert_eq!(names(&set), ["A", "A", "A"]);
    assert_eq!(set.rules[1].expr, "up == 0");
    let labels: Vec<_> = set.rules[2].labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(labels, ["number=5", "severity=none", "x=5"]);
}

#[test]
fn all_errors_at_once() {
    let wrong = from(
        "groups:
- rules: []
- name: a
  interval: 5 minutes
  rules:
  - alert: A
    expr: up == 0
    fro: 5m
  - alert: B
    record: b
    expr: up
  - expr: up
  - alert: C
  - alert: D
    expr: [up]
    for: 1.5h
    labels: { x: { y: z } }
  - record: r
    expr: up
    for: 5m
  - Up
- name: b
  rules: none
---
groups: { a: b }
---
groups:
  - name: broken
   rules: []
---
kind: PrometheusRule
spec: { groups: [ { name: c, rules: [ { alert: E, expr: \"\" } ] } ] }
",
    )
    .unwrap_err();
    insta::assert_snapshot!(wrong.plain());
}

#[test]
fn templates_that_are_not_rendered_are_refused_with_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let templates = folder.path().join("chart/templates");
    fs::create_dir_all(&templates).unwrap();
    fs::write(folder.path().join("chart/Chart.yaml"), "name: x\n").unwrap();
    let write = |name: &str, text: &str| fs::write(templates.join(name), text).unwrap();
    write("a.yaml", "{{- if .Values.rules }}\ngroups:\n- name: a\n  rules: []\n{{- end }}\n");
    write(
        "b.yaml",
        "groups:\n- name: {{ .Release.Name }}\n  rules:\n  - alert: A\n    expr: up > {{ .Values.most }}\n    for: {{ .x }}\n    \
         annotations:\n      a: 'on {{`{{ $labels.x }}`}}'\n",
    );
    write(
        "c.yaml",
        "groups:\n- name: c\n  rules:\n  - alert: A\n    expr: up\n    annotations:\n      a: {{ $value }} lost\n",
    );
    write("d.libsonnet", "{}");
    let inputs = [Input::Path(folder.path().to_owned()), Input::Path(templates.join("d.libsonnet"))];
    let wrong = read(&inputs).unwrap_err().plain();
    insta::assert_snapshot!(wrong.replace(&folder.path().display().to_string(), "FOLDER"));
}

#[test]
fn folders_are_read_by_name_and_each_file_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir_all(path("b/.git")).unwrap();
    let rule = |name: &str| format!("groups: [{{name: g, rules: [{{alert: {name}, expr: up}}]}}]");
    for name in ["c.yml", "a.yaml", "b/x.rules", "b/y.json", "b/.git/z.yaml", "b/readme.md", ".hidden.yaml"] {
        fs::write(path(name), rule(Path::new(name).file_stem().unwrap().to_str().unwrap())).unwrap();
    }
    fs::write(path("b/mixin.libsonnet"), "{}").unwrap();
    std::os::unix::fs::symlink(folder.path(), path("b/loop")).unwrap();
    let set = read(&[Input::Path(folder.path().to_owned()), Input::Path(path("c.yml"))]).unwrap();
    assert_eq!(names(&set), ["a", "x", "y", "c"]);
    assert_eq!(set.files, 4);
    assert_eq!(set.skipped["jsonnet file"], 1);
    assert_eq!(Input::from("-"), Input::Stdin);
}

#[test]
fn inputs_without_rules_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let shown = |inputs: &[&Path]| {
        let inputs: Vec<_> = inputs.iter().map(|path| Input::Path(path.to_path_buf())).collect();
        let wrong = read(&inputs).unwrap_err().plain();
        wrong.replace(&folder.path().display().to_string(), "FOLDER")
    };
    let file = folder.path().join("a.yaml");
    let nothing = shown(&[folder.path()]);
    fs::write(folder.path().join("x.jsonnet"), "{}").unwrap();
    let only_jsonnet = shown(&[folder.path()]);
    fs::write(&file, "kind: Service\n---\nkind: Secret\n").unwrap();
    let other_kinds = shown(&[&file]);
    fs::write(&file, "groups: []\n").unwrap();
    let empty = shown(&[&file]);
    fs::write(&file, b"a: \xff\n").unwrap();
    let bytes = shown(&[&file, Path::new("/nowhere.yaml")]);
    insta::assert_snapshot!([nothing, only_jsonnet, other_kinds, empty, bytes].join("----\n"));
}

#[test]
fn an_expression_that_does_not_parse_leaves_the_others() {
    let set = from("groups: [{name: a, rules: [{alert: A, expr: 'sum(up'}, {alert: B, expr: up}]}]").unwrap();
    assert_eq!(names(&set), ["A", "B"]);
    assert_eq!(set.rules[0].metrics().into_iter().collect::<Vec<_>>(), ["sum", "up"]);
}

#[test]
fn ten_thousand_rules_and_a_long_label() {
    let mut text = String::from("groups:\n");
    for group in 0..100 {
        text.push_str(&format!("- name: g{group}\n  rules:\n"));
        for rule in 0..100 {
            text.push_str(&format!(
                "  - alert: A{rule}\n    expr: |\n      sum by (x) (rate(node_network_up{{device=~\"eth{rule}.*\"}}[5m]))\n        \
                 > {group}\n    for: 5m\n    annotations: {{ a: '{{{{ $value }}}}' }}\n"
            ));
        }
    }
    text.push_str(&format!(
        "- name: last\n  rules:\n  - {{ alert: Z, expr: up, labels: {{ x: {} }} }}\n",
        "y".repeat(1 << 20)
    ));
    let set = from(&text).unwrap();
    assert_eq!((set.rules.len(), set.groups.len()), (10_001, 101));
    assert_eq!(set.rules[10_000].labels["x"].len(), 1 << 20);
    assert_eq!(set.rules[9_999].line, 100 * (2 + 600) + 1 - 6 + 1);
}
