package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"sync"
)

// The requests to the API, in order.
type requestLog struct {
	mutex sync.Mutex
	file  *os.File
}

func openRequestLog(path string) (*requestLog, error) {
	if path == "" {
		return &requestLog{}, nil
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	return &requestLog{file: file}, err
}

func (l *requestLog) wrap(next http.RoundTripper) http.RoundTripper {
	if l.file == nil {
		return next
	}
	return roundTripper(func(request *http.Request) (*http.Response, error) {
		if err := l.note(request); err != nil {
			return nil, err
		}
		return next.RoundTrip(request)
	})
}

func (l *requestLog) note(request *http.Request) error {
	line := map[string]any{"method": request.Method, "path": request.URL.Path, "query": request.URL.RawQuery,
		"accept": request.Header.Get("Accept"), "type": request.Header.Get("Content-Type")}
	if request.Body != nil {
		body, err := io.ReadAll(request.Body)
		if err != nil {
			return err
		}
		request.Body = io.NopCloser(bytes.NewReader(body))
		line["body"] = json.RawMessage(body)
	}
	text, err := json.Marshal(line)
	if err != nil {
		return err
	}
	l.mutex.Lock()
	defer l.mutex.Unlock()
	_, err = l.file.Write(append(text, '\n'))
	return err
}

type roundTripper func(*http.Request) (*http.Response, error)

func (r roundTripper) RoundTrip(request *http.Request) (*http.Response, error) { return r(request) }
