package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/rand"
	_ "embed"
	"encoding/json"
	"fmt"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A job of the real master, with placeholders for what differs.
//
//go:embed job.json
var recordedJob []byte

// As large as the wheel of the real master.
const wheelSize = 671_000

const (
	unpackScript = `#!/bin/sh
# unpack COUNT FROM TO
set -e
i=0
while [ $i -lt $1 ]; do mkdir -p $3/$i; tar -xzf $2/$i.tar.gz -C $3/$i; i=$((i + 1)); done
chmod -R a+rwX $3
`
	// The output of the command goes to the master, not to the pod's log.
	shipScript = `#!/bin/sh
shift
status=/run/determined/workdir/.status
{ "$@" 2>&1; echo $? >$status; } | while read -r line; do
  wget -q -O /dev/null --post-data "$line" "$DET_MASTER/api/v1/task-logs?id=$DET_TASK_ID" || echo "$line"
done
exit "$(cat $status)"
`
	entryScript = "#!/bin/sh\nexec sh -c \"$1\"\n"
)

func taskFiles(t *task) (*corev1.ConfigMap, error) {
	wheel := make([]byte, wheelSize)
	_, _ = rand.Read(wheel)
	archives := []map[string]string{
		{"run/determined/": "", "run/determined/info/": "", "run/determined/pythonuserbase/": "", "run/determined/workdir/": ""},
		{"task-setup.sh": "#!/bin/sh\n", "ship-logs.sh": shipScript, "ship_logs.py": "", "singularity-entrypoint-wrapper.sh": "#!/bin/sh\n"},
		{"opt/determined/wheels/determined-0.38.1-py3-none-any.whl": string(wheel)},
		{"run/determined/command-entrypoint.sh": entryScript},
	}
	data := map[string][]byte{
		"passwd": []byte("root:x:0:0:root:/root:/bin/sh\n"), "shadow": []byte("root:!!:::::::\n"), "group": []byte("root:x:0:\n"),
		"k8_init_container_entrypoint.sh": []byte(unpackScript),
	}
	for i, files := range archives {
		archive, err := packed(files)
		if err != nil {
			return nil, err
		}
		data[fmt.Sprintf("%d.tar.gz", i)] = archive
	}
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: t.Job, Namespace: t.Namespace, Labels: map[string]string{label: t.allocation()}},
		BinaryData: data,
	}, nil
}

func packed(files map[string]string) ([]byte, error) {
	var out bytes.Buffer
	zipped := gzip.NewWriter(&out)
	archive := tar.NewWriter(zipped)
	for name, content := range files {
		header := &tar.Header{Name: name, Mode: 0o755, Size: int64(len(content)), Typeflag: tar.TypeReg}
		if strings.HasSuffix(name, "/") {
			header.Typeflag = tar.TypeDir
		}
		if err := archive.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := archive.Write([]byte(content)); err != nil {
			return nil, err
		}
	}
	if err := archive.Close(); err != nil {
		return nil, err
	}
	err := zipped.Close()
	return out.Bytes(), err
}

// The recorded job with this task's names, image, command and addresses.
func taskJob(t *task, m *manager, class *schedulingv1.PriorityClass) (*batchv1.Job, error) {
	var cluster string
	m.database.read(func() { cluster = m.database.Cluster })
	master := fmt.Sprintf("%s://%s:%d", m.master.scheme, m.master.host, m.master.port)
	text := strings.NewReplacer(
		"det-<c1>-cmd-<task1>", t.Job, "<task1>", t.ID, "<cluster-uuid>", cluster, "http://<master-ip>:8080", master, "<master-ip>", m.master.host,
		"<removed>", newUUID(), "task-image:1", t.Image, "1796022815420000000000000000000000000000000000", queuePosition(),
		`"COMMAND"`, fmt.Sprintf("%q", t.Kind), `"Uncategorized"`, fmt.Sprintf("%q", t.Workspace),
	).Replace(string(recordedJob))
	job := &batchv1.Job{}
	if err := json.Unmarshal([]byte(text), job); err != nil {
		return nil, err
	}
	job.Namespace, job.Spec.Template.Namespace = t.Namespace, t.Namespace
	pod := &job.Spec.Template.Spec
	if class == nil {
		pod.PriorityClassName = ""
	}
	container := &pod.Containers[0]
	container.Command[len(container.Command)-1] = t.Command
	if m.config.SlotType == "cpu" {
		slot := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(fmt.Sprint(m.config.SlotResources.CPU))}
		container.Resources = corev1.ResourceRequirements{Requests: slot, Limits: slot}
	}
	for i := range container.Env {
		if container.Env[i].Name == "DET_MASTER_PORT" {
			container.Env[i].Value = fmt.Sprint(m.master.port)
		}
	}
	return job, nil
}
