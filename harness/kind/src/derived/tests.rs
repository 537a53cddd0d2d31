use k8s_openapi::serde::de::DeserializeOwned;

use super::*;

fn objects<T: DeserializeOwned>(yaml: &str) -> Vec<Arc<T>> {
    vec![Arc::new(serde_yaml::from_str(yaml).expect("an object"))]
}

#[test]
fn a_pod_in_crash_loop_back_off() {
    let pods = objects(
        r#"
metadata:
  name: web-6d4b75cb6d-x2x7z
  namespace: default
  uid: 5c8e
  ownerReferences:
    - { apiVersion: apps/v1, kind: ReplicaSet, name: web-6d4b75cb6d, uid: 9a01, controller: true }
spec:
  nodeName: worker
  restartPolicy: Always
  initContainers:
    - name: migrate
  containers:
    - name: web
      resources:
        requests: { cpu: 100m, memory: 64Mi, example.com/card: "1" }
        limits: { memory: 128Mi }
status:
  phase: Running
  hostIP: 172.18.0.3
  podIP: 10.244.1.7
  conditions:
    - { type: PodScheduled, status: "True" }
    - { type: Ready, status: "False", reason: ContainersNotReady }
  initContainerStatuses:
    - name: migrate
      image: "migrate:1"
      imageID: ""
      ready: true
      restartCount: 0
      state: { terminated: { exitCode: 0, reason: Completed } }
  containerStatuses:
    - name: web
      image: "web:1"
      imageID: ""
      ready: false
      restartCount: 4
      state: { waiting: { reason: CrashLoopBackOff, message: back-off 1m20s restarting failed container } }
      lastState: { terminated: { exitCode: 137, reason: OOMKilled } }
"#,
    );
    insta::assert_snapshot!(exposition(&Objects { pods, ..Objects::default() }));
}

#[test]
fn a_pod_that_was_evicted_and_one_that_waits_for_a_gate() {
    let mut pods = objects(
        r#"
metadata: { name: a, namespace: default, uid: "1" }
spec: { nodeName: worker, containers: [] }
status: { phase: Failed, reason: Evicted }
"#,
    );
    pods.extend(objects(
        r#"
metadata: { name: 'b"\', namespace: default, uid: "2" }
spec: { containers: [] }
status:
  phase: Pending
  reason: SomethingNew
  conditions: [{ type: PodScheduled, status: "False", reason: SchedulingGated }]
"#,
    ));
    let text = exposition(&Objects { pods, ..Objects::default() });
    let about = ["kube_pod_status_reason", "kube_pod_status_scheduled", "kube_pod_status_unschedulable"];
    let lines = text.lines().filter(|line| about.iter().any(|metric| line.starts_with(metric)));
    insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"));
}

#[test]
fn a_node_that_is_not_ready() {
    let nodes = objects(
        r#"
metadata:
  name: worker
  labels: { kubernetes.io/os: linux, node-role.kubernetes.io/ingress: "" }
spec:
  podCIDR: 10.244.1.0/24
  providerID: kind://docker/test/worker
  taints:
    - { key: node.kubernetes.io/unreachable, effect: NoSchedule }
    - { key: node.kubernetes.io/unreachable, effect: NoExecute }
status:
  capacity: { cpu: "2", memory: 4030Mi, pods: "110", ephemeral-storage: 1Gi, hugepages-2Mi: "0" }
  allocatable: { cpu: 1900m, pods: "110" }
  addresses:
    - { type: InternalIP, address: 172.18.0.3 }
    - { type: Hostname, address: worker }
  conditions:
    - { type: MemoryPressure, status: Unknown, reason: NodeStatusUnknown }
    - { type: Ready, status: Unknown, reason: NodeStatusUnknown }
  nodeInfo:
    architecture: amd64
    bootID: ""
    containerRuntimeVersion: containerd://2.1.3
    kernelVersion: 6.1.0
    kubeProxyVersion: ""
    kubeletVersion: v1.34.0
    machineID: ""
    operatingSystem: linux
    osImage: Debian GNU/Linux 12
    systemUUID: ab12
"#,
    );
    insta::assert_snapshot!(exposition(&Objects { nodes, ..Objects::default() }));
}

#[test]
fn workloads_with_a_missing_replica() {
    let of = |kind: &str| format!("{{ apiVersion: apps/v1, kind: {kind}, name: owner, uid: u, controller: true }}");
    let deployments = objects(
        r#"
metadata: { name: web, namespace: default, generation: 3 }
spec: { replicas: 2, selector: {}, template: {} }
status:
  observedGeneration: 3
  replicas: 2
  updatedReplicas: 2
  readyReplicas: 1
  availableReplicas: 1
  unavailableReplicas: 1
  conditions:
    - { type: Available, status: "False", reason: MinimumReplicasUnavailable }
    - { type: Progressing, status: "True", reason: OfAnotherController }
"#,
    );
    let replica_sets = objects(&format!(
        "metadata: {{ name: web-1, namespace: default, ownerReferences: [{}] }}\nspec: {{ replicas: 2, selector: {{}} }}\nstatus: {{ replicas: 2, readyReplicas: 1 }}",
        of("Deployment")
    ));
    let stateful_sets = objects(
        r#"
metadata: { name: db, namespace: default, generation: 1 }
spec: { replicas: 3, selector: {}, template: {}, serviceName: db }
status: { observedGeneration: 1, replicas: 3, readyReplicas: 2, currentRevision: db-1, updateRevision: db-2 }
"#,
    );
    let daemon_sets = objects(
        r#"
metadata: { name: agent, namespace: kube-system, generation: 1 }
status:
  currentNumberScheduled: 3
  desiredNumberScheduled: 3
  numberMisscheduled: 0
  numberReady: 2
  numberAvailable: 2
  numberUnavailable: 1
  observedGeneration: 1
"#,
    );
    insta::assert_snapshot!(exposition(&Objects {
        deployments,
        replica_sets,
        stateful_sets,
        daemon_sets,
        ..Objects::default()
    }));
}

#[test]
fn jobs_services_and_the_rest() {
    let mut jobs = objects(
        r#"
metadata: { name: backup, namespace: default }
spec: { parallelism: 1, completions: 1, template: {} }
status: { failed: 7, conditions: [{ type: Failed, status: "True", reason: BackoffLimitExceeded }] }
"#,
    );
    jobs.extend(objects("metadata: { name: once, namespace: default }\nstatus: { failed: 1, active: 1 }"));
    jobs.extend(objects(
        "metadata: { name: done, namespace: default }\nstatus: { succeeded: 1, conditions: [{ type: Complete, status: 'True' }] }",
    ));
    insta::assert_snapshot!(exposition(&Objects {
        jobs,
        namespaces: objects("metadata: { name: default }\nstatus: { phase: Active }"),
        persistent_volumes: objects("metadata: { name: disk }\nstatus: { phase: Failed }"),
        services: objects(
            "metadata: { name: web, namespace: default, uid: s }\nspec: { type: ClusterIP, clusterIP: 10.96.0.7 }"
        ),
        endpoints: objects(
            r#"
metadata: { name: web, namespace: default }
subsets:
  - addresses: [{ ip: 10.244.1.7 }]
    notReadyAddresses: [{ ip: 10.244.2.9 }]
    ports: [{ name: http, port: 8080, protocol: TCP }]
"#
        ),
        ..Objects::default()
    }));
}
