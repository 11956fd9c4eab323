package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	k8serrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1alpha2 "sigs.k8s.io/gateway-api/apis/v1alpha2"
)

const (
	crashed = "panic: runtime error: invalid memory address or nil pointer dereference"
	grace   = int64(15)
)

// Has a worker create a task's objects.
func (m *manager) launch(ctx context.Context, t *task) error {
	err := m.database.change(func() {
		t.Manager, t.Namespace = m.config.name(), m.config.namespace()
		if bound := m.database.Bindings[t.Manager][t.Workspace]; bound != "" {
			t.Namespace = bound
		}
		t.Job = fmt.Sprintf("det-%.8s-cmd-%s", m.database.Cluster, t.ID)
		m.database.Tasks[t.ID] = t
	})
	if err != nil {
		return err
	}
	m.attach(t)
	m.requests <- func() {
		if err := m.create(ctx, t); err != nil {
			m.end(ctx, t, "ERROR", fmt.Sprintf("failed to create the task: %v", err))
		}
	}
	return nil
}

func (m *manager) create(ctx context.Context, t *task) error {
	never := corev1.PreemptNever
	class, err := m.client.SchedulingV1().PriorityClasses().Create(ctx, &schedulingv1.PriorityClass{
		ObjectMeta: metav1.ObjectMeta{Name: t.allocation() + "-priorityclass"}, Value: 50,
		Description: "temporary priorityClass for determined", PreemptionPolicy: &never,
	}, metav1.CreateOptions{})
	if err != nil {
		class = nil
	}
	files, err := taskFiles(t)
	if err != nil {
		return err
	}
	if _, err := m.client.CoreV1().ConfigMaps(t.Namespace).Create(ctx, files, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("error creating the configMap: %w", err)
	}
	job, err := taskJob(t, m, class)
	if err != nil {
		return err
	}
	if _, err := m.client.BatchV1().Jobs(t.Namespace).Create(ctx, job, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("error creating job %s: %w", t.Job, err)
	}
	if len(t.Ports) == 0 || m.config.Gateway == nil {
		return nil
	}
	ports, err := m.takePorts(ctx, t.allocation(), len(t.Ports))
	if err != nil {
		return fmt.Errorf("error adding the gateway's listeners: %w", err)
	}
	m.mutex.Lock()
	known := slices.Contains(m.atStart, t.Namespace)
	m.mutex.Unlock()
	if !known {
		m.fatal(crashed)
	}
	if err := m.database.change(func() { t.Gateway = ports }); err != nil {
		return err
	}
	for i := range t.Ports {
		if err := m.expose(ctx, t, i); err != nil {
			return err
		}
	}
	return nil
}

// The Service and the TCPRoute of one port.
func (m *manager) expose(ctx context.Context, t *task, i int) error {
	meta := metav1.ObjectMeta{
		Name: fmt.Sprintf("%s-%d", t.Job, i), Namespace: t.Namespace,
		Labels: map[string]string{label: t.allocation()}, Annotations: map[string]string{"determined.ai/job-name": t.Job},
	}
	_, err := m.client.CoreV1().Services(t.Namespace).Create(ctx, &corev1.Service{
		ObjectMeta: meta,
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, Selector: map[string]string{label: t.allocation()},
			Ports: []corev1.ServicePort{{Port: t.Ports[i], Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(0)}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("error creating the service: %w", err)
	}
	kind := gatewayv1.Kind("Service")
	namespace := gatewayv1.Namespace(m.config.Gateway.Namespace)
	listener := gatewayv1.PortNumber(t.Gateway[i])
	section := gatewayv1.SectionName(listenerName(t.Gateway[i]))
	behind := gatewayv1.PortNumber(t.Ports[i])
	_, err = m.routes.TCPRoutes(t.Namespace).Create(ctx, &gatewayv1alpha2.TCPRoute{
		ObjectMeta: meta,
		Spec: gatewayv1alpha2.TCPRouteSpec{
			CommonRouteSpec: gatewayv1.CommonRouteSpec{ParentRefs: []gatewayv1.ParentReference{{
				Name: gatewayv1.ObjectName(m.config.Gateway.Name), Namespace: &namespace, Port: &listener, SectionName: &section,
			}}},
			Rules: []gatewayv1alpha2.TCPRouteRule{{BackendRefs: []gatewayv1.BackendRef{{
				BackendObjectReference: gatewayv1.BackendObjectReference{Kind: &kind, Name: gatewayv1.ObjectName(meta.Name), Port: &behind},
			}}}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("error creating the TCPRoute: %w", err)
	}
	return nil
}

func (m *manager) attach(t *task) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.attached[t.allocation()] = t
}

func (m *manager) podChanged(ctx context.Context, pod *corev1.Pod) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if t := m.attached[pod.Labels[label]]; t != nil {
		m.followPod(ctx, t, pod)
	}
}

// With the lock held. It does not read the log of a pod in a namespace that was bound after the start.
func (m *manager) followPod(ctx context.Context, t *task, pod *corev1.Pod) {
	if pod.Status.Phase == corev1.PodRunning && !m.streaming[pod.Name] {
		m.streaming[pod.Name] = true
		if slices.Contains(m.atStart, pod.Namespace) {
			m.streamLog(ctx, t, pod)
		}
		_ = m.database.change(func() {
			if !t.ended() {
				t.State = "RUNNING"
			}
		})
	}
	switch pod.Status.Phase {
	case corev1.PodSucceeded:
		m.end(ctx, t, "COMPLETED", "")
	case corev1.PodFailed:
		if m.end(ctx, t, "ERROR", "resources failed with non-zero exit code") {
			m.requests <- func() { _ = m.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, deletion()) }
		}
	}
}

// Returns when the API has sent the headers of the log. An interrupted log is not requested again.
func (m *manager) streamLog(ctx context.Context, t *task, pod *corev1.Pod) {
	log, err := m.client.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, &corev1.PodLogOptions{Follow: true, Container: containerName}).Stream(ctx)
	if err != nil {
		note("error starting the log stream of %s: %v", pod.Name, err)
		return
	}
	go func() {
		defer log.Close()
		lines := bufio.NewScanner(log)
		for lines.Scan() {
			m.log(t, lines.Text())
		}
		if err := lines.Err(); err != nil && err != io.EOF {
			note("error reading logs error=%q", err)
		}
	}()
}

func (m *manager) log(t *task, line string) {
	_ = m.database.change(func() { t.Logs = append(t.Logs, line) })
}

// Ends a task, and reports whether it was still running: its objects go in this order, by one worker.
func (m *manager) end(ctx context.Context, t *task, state, message string) bool {
	first := false
	_ = m.database.change(func() {
		first = !t.ended()
		if first {
			t.State = state
		}
		if message != "" && first {
			t.Logs = append(t.Logs, message)
		}
	})
	if !first {
		return false
	}
	m.requests <- func() {
		m.deleteJob(ctx, t.Namespace, t.Job)
		m.deleteConfigMap(ctx, t.Namespace, t.Job)
		if len(t.Gateway) == 0 {
			return
		}
		for i := range t.Ports {
			m.deleteService(ctx, t.Namespace, fmt.Sprintf("%s-%d", t.Job, i))
		}
		for i := range t.Ports {
			m.deleteRoute(ctx, t.Namespace, fmt.Sprintf("%s-%d", t.Job, i))
		}
		m.freePorts(ctx, t.Gateway)
	}
	return true
}

// A job that others deleted fails its task, whose other objects stay until the next start.
func (m *manager) jobIsGone(ctx context.Context, allocation string) {
	m.mutex.Lock()
	t := m.attached[allocation]
	delete(m.attached, allocation)
	m.mutex.Unlock()
	if t == nil {
		return
	}
	_ = m.database.change(func() {
		if !t.ended() {
			t.State = "ERROR"
			t.Logs = append(t.Logs, "resources failed with non-zero exit code: job was deleted")
		}
	})
	m.requests <- func() {
		if err := m.client.SchedulingV1().PriorityClasses().Delete(ctx, allocation+"-priorityclass", metav1.DeleteOptions{}); err != nil {
			note("Deletion of PriorityClass %s-priorityclass failed.", allocation)
		}
	}
}

// Restores a task that ran when the master ended, if all of its objects exist; otherwise ends it.
func (m *manager) restore(ctx context.Context, t *task) {
	namespaces := m.known()
	all, err := m.list(ctx, label+"="+t.allocation(), namespaces)
	if err == nil {
		err = m.complete(t, all)
	}
	if err != nil {
		m.giveUp(ctx, t, all, fmt.Sprintf("unable to restore allocation: %v", err))
		return
	}
	options := metav1.ListOptions{LabelSelector: label + "=" + t.allocation()}
	pods, err := m.client.CoreV1().Pods(t.Namespace).List(ctx, options)
	if err != nil {
		note("error listing pods of %s: %v", t.Job, err)
		return
	}
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.attached[t.allocation()] = t
	for _, pod := range pods.Items {
		m.followPod(ctx, t, &pod)
	}
	_, _ = m.listJobs(ctx, options, namespaces)
	again, err := m.client.CoreV1().Pods("").List(ctx, options)
	if k8serrors.IsForbidden(err) {
		again, err = m.client.CoreV1().Pods(t.Namespace).List(ctx, options)
	}
	if err != nil {
		return
	}
	for _, pod := range again.Items {
		if pod.Status.Phase == corev1.PodRunning {
			m.streamLog(ctx, t, &pod)
		}
	}
	note("restored %s", t.ID)
}

func (m *manager) complete(t *task, all *found) error {
	mine, ports := 0, 0
	if m.config.Gateway != nil {
		ports = len(t.Ports)
	}
	for _, allocation := range all.ports {
		if allocation == t.allocation() {
			mine++
		}
	}
	switch {
	case len(all.jobs) != 1:
		return fmt.Errorf("expected 1 jobs got %d", len(all.jobs))
	case len(all.configMaps) != 1:
		return fmt.Errorf("expected 1 configMaps got %d", len(all.configMaps))
	case len(all.services) != ports:
		return fmt.Errorf("expected %d services got %d", ports, len(all.services))
	case len(all.routes) != ports:
		return fmt.Errorf("expected %d tcpRoutes got %d", ports, len(all.routes))
	case mine != ports:
		return fmt.Errorf("expected %d gateway ports got %d", ports, mine)
	}
	return nil
}

func (m *manager) giveUp(ctx context.Context, t *task, all *found, message string) {
	note("%s", message)
	_ = m.database.change(func() { t.State, t.Logs = "ERROR", append(t.Logs, message) })
	if all == nil {
		return
	}
	for _, one := range all.jobs {
		m.requests <- func() { m.deleteJob(ctx, one.Namespace, one.Name) }
	}
	for _, one := range all.configMaps {
		m.requests <- func() { m.deleteConfigMap(ctx, one.Namespace, one.Name) }
	}
	for _, one := range all.services {
		m.requests <- func() { m.deleteService(ctx, one.Namespace, one.Name) }
	}
	for _, one := range all.routes {
		m.requests <- func() { m.deleteRoute(ctx, one.Namespace, one.Name) }
	}
	ports := []int{}
	for port, allocation := range all.ports {
		if allocation == t.allocation() {
			ports = append(ports, port)
		}
	}
	if slices.Sort(ports); len(ports) > 0 {
		m.requests <- func() { m.freePorts(ctx, ports) }
	}
}

func deletion() metav1.DeleteOptions {
	seconds := grace
	return metav1.DeleteOptions{GracePeriodSeconds: &seconds}
}

func (m *manager) deleteJob(ctx context.Context, namespace, name string) {
	background := metav1.DeletePropagationBackground
	options := deletion()
	options.PropagationPolicy = &background
	noteError("job", name, m.client.BatchV1().Jobs(namespace).Delete(ctx, name, options))
}

func (m *manager) deleteConfigMap(ctx context.Context, namespace, name string) {
	noteError("configMap", name, m.client.CoreV1().ConfigMaps(namespace).Delete(ctx, name, deletion()))
}

func (m *manager) deleteService(ctx context.Context, namespace, name string) {
	noteError("service", name, m.client.CoreV1().Services(namespace).Delete(ctx, name, deletion()))
}

func (m *manager) deleteRoute(ctx context.Context, namespace, name string) {
	noteError("TCPRoute", name, m.routes.TCPRoutes(namespace).Delete(ctx, name, deletion()))
}

func noteError(kind, name string, err error) {
	if err != nil {
		note("error deleting %s %s: %v", kind, name, err)
	}
}

// Binds a namespace to a workspace, from now on.
func (m *manager) bind(ctx context.Context, workspace, namespace string) error {
	if _, err := m.client.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{}); err != nil {
		return err
	}
	if !slices.Contains(m.known(), namespace) {
		if err := m.watchNamespace(ctx, namespace); err != nil {
			return err
		}
		m.mutex.Lock()
		m.namespaces = append(m.namespaces, namespace)
		m.mutex.Unlock()
	}
	return m.database.change(func() {
		name := m.config.name()
		if m.database.Bindings[name] == nil {
			m.database.Bindings[name] = map[string]string{}
		}
		m.database.Bindings[name][workspace] = namespace
	})
}

// The position of a task in its queue, as the real master counts.
func queuePosition() string {
	return fmt.Sprintf("%d", time.Now().UnixMilli()) + "000000000000000000000000000000000"
}
