// A stand-in for Determined's master that sends the same requests to the Kubernetes API: see README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
)

// A crash of the real master, as Go's runtime reports it.
const panicked = 2

func note(format string, args ...any) { log.Printf(format, args...) }

func main() {
	file := flag.String("config-file", "", "master.yaml")
	state := flag.String("database", "", "a file in place of PostgreSQL")
	requests := flag.String("requests", "", "a file for the requests to the API, one line of JSON each")
	flag.Parse()
	if err := run(*file, *state, *requests); err != nil {
		log.Fatal(err)
	}
}

func run(file, state, log string) error {
	config, err := readConfig(file)
	if err != nil {
		return err
	}
	note("master configuration: read from %s", file)
	if state == "" {
		return errors.New("no database")
	}
	database, err := openDatabase(state, config.Security.InitialUserPassword)
	if err != nil {
		return err
	}
	requests, err := openRequestLog(log)
	if err != nil {
		return err
	}
	// SIGTERM ends the real master at once with 143, and it deletes nothing.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT)
	defer stop()
	fatal := func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, format+"\n", args...)
		os.Exit(panicked)
	}
	server := newServer(database)
	restored := []func(){}
	all := append([]additionalConfig{{config.Manager, config.Pools}}, config.Additional...)
	for _, one := range all {
		started, err := startManager(ctx, one.Manager, database, requests, fatal)
		if err != nil {
			return err
		}
		server.add(started, one.Pools)
		for _, t := range started.unrestored() {
			restored = append(restored, func() { started.restore(ctx, t) })
		}
	}
	listener, err := net.Listen("tcp", net.JoinHostPort("", strconv.Itoa(config.Port)))
	if err != nil {
		return err
	}
	note("accepting incoming connections on port %d", config.Port)
	go func() {
		for _, restore := range restored {
			restore()
		}
	}()
	http := &http.Server{Handler: server.handler(ctx)}
	go func() {
		<-ctx.Done()
		http.Close()
	}()
	if tls := config.Security.TLS; tls.Cert != "" {
		return http.ServeTLS(listener, tls.Cert, tls.Key)
	}
	return http.Serve(listener)
}
