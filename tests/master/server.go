package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
)

// The part of the master's HTTP API that the tests use. Only the login requires a password.
type server struct {
	database *database
	managers []*manager
	pools    map[string]*manager
}

func newServer(database *database) *server {
	return &server{database: database, pools: map[string]*manager{}}
}

func (s *server) add(m *manager, pools []pool) {
	for _, pool := range pools {
		s.pools[pool.Name] = m
	}
	if len(s.managers) == 0 {
		s.pools[""] = m
	}
	s.managers = append(s.managers, m)
}

func (s *server) handler(ctx context.Context) http.Handler {
	routes := http.NewServeMux()
	routes.HandleFunc("POST /api/v1/auth/login", s.login)
	routes.HandleFunc("POST /api/v1/auth/logout", func(http.ResponseWriter, *http.Request) {})
	routes.HandleFunc("GET /api/v1/master", s.about)
	routes.HandleFunc("POST /api/v1/commands", func(w http.ResponseWriter, r *http.Request) { s.launch(ctx, w, r) })
	routes.HandleFunc("GET /api/v1/commands/{id}", s.show)
	routes.HandleFunc("POST /api/v1/commands/{id}/kill", func(w http.ResponseWriter, r *http.Request) { s.kill(ctx, w, r) })
	routes.HandleFunc("POST /api/v1/task-logs", s.shipped)
	routes.HandleFunc("PUT /api/v1/workspaces/{name}/namespace", func(w http.ResponseWriter, r *http.Request) { s.bind(ctx, w, r) })
	routes.HandleFunc("/proxy/{id}/{port}/", s.proxy)
	return routes
}

func answer(w http.ResponseWriter, code int, what any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(what)
}

func refuse(w http.ResponseWriter, code int, message string) {
	answer(w, code, map[string]any{"error": map[string]any{"code": code, "error": message}})
}

func (s *server) login(w http.ResponseWriter, r *http.Request) {
	var asked struct{ Username, Password string }
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	known, is := "", false
	s.database.read(func() { known, is = s.database.Passwords[asked.Username] })
	if !is || known != asked.Password {
		refuse(w, http.StatusUnauthorized, "invalid credentials")
		return
	}
	answer(w, http.StatusOK, map[string]any{"token": newUUID(), "user": map[string]any{"username": asked.Username}})
}

func (s *server) about(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, map[string]any{"version": "0.38.1", "clusterId": s.database.Cluster, "masterId": s.database.Cluster})
}

func (s *server) launch(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	t := &task{Kind: "COMMAND", Workspace: "Uncategorized"}
	if err := json.NewDecoder(r.Body).Decode(t); err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	m := s.pools[t.Pool]
	if m == nil {
		refuse(w, http.StatusBadRequest, "no resource pool "+t.Pool)
		return
	}
	t.ID, t.State = newUUID(), "QUEUED"
	if err := m.launch(ctx, t); err != nil {
		refuse(w, http.StatusInternalServerError, err.Error())
		return
	}
	answer(w, http.StatusOK, map[string]string{"id": t.ID})
}

func (s *server) find(id string) (*task, *manager) {
	var found *task
	s.database.read(func() { found = s.database.Tasks[id] })
	if found == nil {
		return nil, nil
	}
	i := slices.IndexFunc(s.managers, func(m *manager) bool { return m.config.name() == found.Manager })
	if i < 0 {
		return nil, nil
	}
	return found, s.managers[i]
}

func (s *server) show(w http.ResponseWriter, r *http.Request) {
	t, _ := s.find(r.PathValue("id"))
	if t == nil {
		refuse(w, http.StatusNotFound, "no such task")
		return
	}
	s.database.read(func() { answer(w, http.StatusOK, t) })
}

func (s *server) kill(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	t, m := s.find(r.PathValue("id"))
	if t == nil {
		refuse(w, http.StatusNotFound, "no such task")
		return
	}
	// Like every change of a task, it waits for the lock.
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.end(ctx, t, "COMPLETED", "")
	answer(w, http.StatusOK, map[string]string{})
}

// Lines that a task's container ships.
func (s *server) shipped(w http.ResponseWriter, r *http.Request) {
	t, m := s.find(r.URL.Query().Get("id"))
	line, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if t == nil || err != nil {
		refuse(w, http.StatusNotFound, "no such task")
		return
	}
	m.log(t, string(line))
	answer(w, http.StatusOK, map[string]string{})
}

func (s *server) bind(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	var asked struct{ Namespace, Manager string }
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	for _, m := range s.managers {
		if asked.Manager != "" && m.config.name() != asked.Manager {
			continue
		}
		if err := m.bind(ctx, r.PathValue("name"), asked.Namespace); err != nil {
			refuse(w, http.StatusNotFound, err.Error())
			return
		}
		break
	}
	answer(w, http.StatusOK, map[string]string{})
}

// A task's port through the Gateway. Each request has its own transport, as the real master's requests to notebooks.
func (s *server) proxy(w http.ResponseWriter, r *http.Request) {
	t, m := s.find(r.PathValue("id"))
	var port int32
	if _, err := fmt.Sscan(r.PathValue("port"), &port); t == nil || err != nil {
		refuse(w, http.StatusNotFound, "no such task")
		return
	}
	target, running := "", false
	s.database.read(func() {
		running = t.State == "RUNNING"
		if i := slices.Index(t.Ports, port); i >= 0 && i < len(t.Gateway) && m.config.Gateway != nil {
			target = fmt.Sprintf("%s:%d", m.config.Gateway.IP, t.Gateway[i])
		}
	})
	if !running || target == "" {
		refuse(w, http.StatusNotFound, "the service is not registered")
		return
	}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: target})
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	proxy.Transport = transport
	prefix := fmt.Sprintf("/proxy/%s/%d", t.ID, port)
	http.StripPrefix(prefix, proxy).ServeHTTP(w, r)
}
