package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// The keys of master.yaml that have an effect here. Other keys of the master are accepted without effect.
type config struct {
	Port     int      `yaml:"port"`
	Security security `yaml:"security"`
	Log      struct {
		Level string `yaml:"level"`
		Color any    `yaml:"color"`
	} `yaml:"log"`
	Cache struct {
		Dir string `yaml:"cache_dir"`
	} `yaml:"cache"`
	CheckpointStorage map[string]any     `yaml:"checkpoint_storage"`
	Manager           *managerConfig     `yaml:"resource_manager"`
	Pools             []pool             `yaml:"resource_pools"`
	Additional        []additionalConfig `yaml:"additional_resource_managers"`

	Known map[string]any `yaml:",inline"`
}

type security struct {
	InitialUserPassword string `yaml:"initial_user_password"`
	TLS                 struct {
		Cert string `yaml:"cert"`
		Key  string `yaml:"key"`
	} `yaml:"tls"`

	Known map[string]any `yaml:",inline"`
}

type pool struct {
	Name string `yaml:"pool_name"`

	Known map[string]any `yaml:",inline"`
}

type additionalConfig struct {
	Manager *managerConfig `yaml:"resource_manager"`
	Pools   []pool         `yaml:"resource_pools"`
}

type managerConfig struct {
	Type             string `yaml:"type"`
	Name             string `yaml:"name"`
	ClusterName      string `yaml:"cluster_name"`
	Namespace        string `yaml:"namespace"`
	DefaultNamespace string `yaml:"default_namespace"`
	MaxSlotsPerPod   *int   `yaml:"max_slots_per_pod"`
	SlotType         string `yaml:"slot_type"`
	SlotResources    struct {
		CPU float64 `yaml:"cpu"`
	} `yaml:"slot_resource_requests"`
	DefaultScheduler string   `yaml:"default_scheduler"`
	KubeconfigPath   string   `yaml:"kubeconfig_path"`
	MasterHost       string   `yaml:"determined_master_host"`
	MasterPort       int      `yaml:"determined_master_port"`
	MasterScheme     string   `yaml:"determined_master_scheme"`
	Gateway          *gateway `yaml:"internal_task_gateway"`

	Known map[string]any `yaml:",inline"`
}

type gateway struct {
	Name      string `yaml:"gateway_name"`
	Namespace string `yaml:"gateway_namespace"`
	IP        string `yaml:"gateway_ip"`
	Start     *int   `yaml:"gateway_port_range_start"`
	End       *int   `yaml:"gateway_port_range_end"`

	Known map[string]any `yaml:",inline"`
}

var (
	rootKeys = []string{"config_file", "db", "tensorboard_timeout", "notebook_timeout", "task_container_defaults", "root", "telemetry",
		"enable_cors", "launch_error", "cluster_name", "logging", "retention_policy", "observability", "webhooks", "feature_switches",
		"reserved_ports", "integrations", "scheduler", "provisioner", "__internal"}
	securityKeys = []string{"default_task", "ssh", "authz", "token"}
	managerKeys  = []string{"metadata", "master_service_name", "leave_kubernetes_resources", "determined_master_ip", "fluent", "credentials",
		"default_aux_resource_pool", "default_compute_resource_pool", "no_default_resource_pools", "require_authentication", "client_ca"}
	schedulers   = []string{"", "coscheduler", "preemption", "default-scheduler"}
	levels       = []string{"", "trace", "debug", "info", "warn", "error", "fatal"}
	storages     = []string{"shared_fs", "s3", "gcs", "azure", "directory"}
	slotTypes    = []string{"", "cpu", "cuda", "gpu", "rocm"}
	gatewayNames = regexp.MustCompile(`^[a-zA-Z0-9]([-a-zA-Z0-9_.]*[a-zA-Z0-9])?$`)
)

const (
	firstPort, lastPort = 32768, 65535
	lowestPort          = 1025
)

func readConfig(path string) (*config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	read := &config{Port: 8080}
	if err := yaml.Unmarshal(text, read); err != nil {
		return nil, fmt.Errorf("error unmarshalling configuration: %w", err)
	}
	return read, read.check()
}

// The first reason for which the master refuses its configuration.
func (c *config) check() error {
	if err := unknown("", c.Known, rootKeys); err != nil {
		return err
	}
	if err := unknown("security.", c.Security.Known, securityKeys); err != nil {
		return err
	}
	if !slices.Contains(levels, c.Log.Level) {
		return fmt.Errorf("invalid log level: %q", c.Log.Level)
	}
	if kind, ok := c.CheckpointStorage["type"]; c.CheckpointStorage != nil && (!ok || !slices.Contains(storages, fmt.Sprint(kind))) {
		return fmt.Errorf("invalid checkpoint storage type: %v", kind)
	}
	if tls := c.Security.TLS; (tls.Cert == "") != (tls.Key == "") {
		return fmt.Errorf("TLS certificate and key must be given together")
	}
	if err := writable(c.Cache.Dir); err != nil {
		return fmt.Errorf("cannot write the cache directory: %w", err)
	}
	if c.Manager == nil {
		return fmt.Errorf("the stand-in knows a resource manager of Kubernetes only")
	}
	return c.checkManagers()
}

func (c *config) checkManagers() error {
	names, pools := map[string]bool{}, map[string]bool{}
	all := append([]additionalConfig{{c.Manager, c.Pools}}, c.Additional...)
	for i, one := range all {
		if one.Manager == nil || i > 0 && len(one.Pools) == 0 {
			return fmt.Errorf("additional_resource_managers[%d]: a resource manager needs a resource pool", i-1)
		}
		if err := one.Manager.check(); err != nil {
			return err
		}
		if i == 0 && one.Manager.name() == "" {
			one.Manager.Name = "default"
		}
		if names[one.Manager.name()] || one.Manager.name() == "" {
			return fmt.Errorf("resource manager name %q is missing or not unique", one.Manager.name())
		}
		names[one.Manager.name()] = true
		for _, pool := range one.Pools {
			if pool.Name == "" || pools[pool.Name] {
				return fmt.Errorf("resource pool name %q is missing or not unique", pool.Name)
			}
			pools[pool.Name] = true
		}
	}
	return nil
}

func (m *managerConfig) name() string {
	if m.ClusterName != "" {
		return m.ClusterName
	}
	return m.Name
}

func (m *managerConfig) namespace() string {
	switch {
	case m.DefaultNamespace != "":
		return m.DefaultNamespace
	case m.Namespace != "":
		return m.Namespace
	}
	return "default"
}

func (m *managerConfig) check() error {
	if m.Type != "kubernetes" {
		return fmt.Errorf("resource manager type %q: the stand-in knows kubernetes only", m.Type)
	}
	if err := unknown("resource_manager.", m.Known, managerKeys); err != nil {
		return err
	}
	switch {
	case m.MaxSlotsPerPod == nil:
		return fmt.Errorf("must provide max_slots_per_pod")
	case !slices.Contains(slotTypes, m.SlotType):
		return fmt.Errorf("invalid slot_type: %q", m.SlotType)
	case m.SlotType == "cpu" && m.SlotResources.CPU <= 0:
		return fmt.Errorf("slot_resource_requests.cpu must be > 0 with slot_type cpu")
	case !slices.Contains(schedulers, m.DefaultScheduler):
		return fmt.Errorf("invalid default_scheduler: %q", m.DefaultScheduler)
	case m.Gateway == nil:
		return nil
	}
	return m.Gateway.check()
}

func (g *gateway) check() error {
	if err := unknown("internal_task_gateway.", g.Known, nil); err != nil {
		return err
	}
	for _, name := range []string{g.Name, g.Namespace} {
		if len(name) > 63 || !gatewayNames.MatchString(name) {
			return fmt.Errorf("invalid name of a Gateway or its namespace: %q", name)
		}
	}
	start, end := g.ports()
	switch {
	case g.IP == "":
		return fmt.Errorf("gateway_ip is required")
	case start < lowestPort || start > lastPort || end < lowestPort || end > lastPort:
		return fmt.Errorf("gateway ports must be %d to %d", lowestPort, lastPort)
	case start >= end:
		return fmt.Errorf("gateway_port_range_start must be less than gateway_port_range_end")
	}
	return nil
}

func (g *gateway) ports() (start, end int) {
	start, end = firstPort, lastPort
	if g.Start != nil {
		start = *g.Start
	}
	if g.End != nil {
		end = *g.End
	}
	return start, end
}

func unknown(where string, keys map[string]any, known []string) error {
	for key := range keys {
		if !slices.Contains(known, key) {
			return fmt.Errorf("json: unknown field %q", strings.TrimPrefix(where+key, "."))
		}
	}
	return nil
}

func writable(dir string) error {
	if dir == "" {
		dir = "/var/cache/determined"
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	probe := filepath.Join(dir, ".writable")
	if err := os.WriteFile(probe, nil, 0o600); err != nil {
		return err
	}
	return os.Remove(probe)
}
