"""A stand-in for a W&B server, on loopback: what `wandb sync` and `gene-bert … --report-to wandb`
send is kept in memory, and failures can be injected.

Not a program: scripts/interop/tracking.py uses it. It knows UpsertBucket, CreateRunFiles, the
queries that the client asks before it sends, file_stream and uploads.
"""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """Connections that clients cut are no news."""


class StandIn:
    """Runs by their id: `config`, lines of each file by their number, `files`, `end`."""

    def __init__(self, port=0):
        self.runs, self.requests, self.asked = {}, [], []
        self.trouble = lambda number, path: None
        self.lock = threading.Lock()
        self.server = Server(("127.0.0.1", port), handler(self))
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    def graphql(self, query, variables):
        name = query.split("(")[0].split("{")[0].split()[-1] if query.strip() else ""
        self.asked.append(name)
        if "upsertBucket" in query:
            run = self.runs.setdefault(variables["name"], {"lines": {}, "files": {}, "ends": [],
                                                           "upserts": 0})
            run["upserts"] += 1
            run.update({key: value for key, value in variables.items() if value is not None})
            if variables.get("config"):
                run["config"] = json.loads(variables["config"])
            history = run["lines"].get("wandb-history.jsonl", {})
            entity = variables.get("entity") or "someone"
            bucket = {
                "id": "bucket", "name": variables["name"],
                "displayName": variables.get("displayName"), "description": None, "config": "{}",
                "sweepName": None, "historyLineCount": len(history),
                "project": {"id": "project", "name": variables.get("project") or "uncategorized",
                            "entity": {"id": "entity", "name": entity}},
            }
            return {"upsertBucket": {"bucket": bucket, "inserted": run["upserts"] == 1}}
        if "createRunFiles" in query:
            files = [{"name": file, "uploadUrl": f"{self.url}/upload/{variables['run']}/{file}"}
                     for file in variables["files"]]
            return {"createRunFiles": {"runID": "bucket", "uploadHeaders": ["X-Stand-In: yes"],
                                       "files": files}}
        if "viewer" in query:
            return {"viewer": {"id": "me", "entity": "someone", "username": "someone", "email": "",
                               "flags": "{}", "teams": {"edges": []}}}
        if "serverInfo" in query:
            return {"serverInfo": {"features": [], "cliVersionInfo": {}, "latestLocalVersionInfo": None}}
        return {"model": None, "project": None}

    def stream(self, run_id, body):
        run = self.runs[run_id]
        for name, part in body.get("files", {}).items():
            lines = run["lines"].setdefault(name, {})
            for i, line in enumerate(part["content"]):
                lines[part["offset"] + i] = line
        if body.get("complete"):
            run["ends"].append(body.get("exitcode"))
        return {"exitcode": None, "limits": {}}

    def history(self, run_id):
        lines = self.runs[run_id]["lines"].get("wandb-history.jsonl", {})
        assert sorted(lines) == list(range(len(lines))), "lines are missing"
        return [json.loads(lines[i]) for i in range(len(lines))]

    def summary(self, run_id):
        lines = self.runs[run_id]["lines"]["wandb-summary.json"]
        return json.loads(lines[max(lines)])


def handler(owner):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def body(self):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def answer(self, status, value):
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def troubled(self):
            """Whether this request fails; the body has been read, so it may be used before."""
            with owner.lock:
                owner.requests.append(self.path)
                trouble = owner.trouble(len(owner.requests), self.path)
            if trouble == "drop":
                self.close_connection = True
            elif trouble == "stall":
                time.sleep(8)
            elif trouble:
                self.answer(trouble, {"error": "injected"})
            return trouble

        def do_POST(self):
            data = self.body()
            trouble = self.troubled()
            if trouble in (500, 503, 429):
                return
            if not self.path.endswith(("/graphql", "/file_stream")):
                return self.answer(404, {"error": "not here"})
            body = json.loads(data or b"{}")
            with owner.lock:
                if self.path.endswith("/graphql"):
                    value = {"data": owner.graphql(body["query"], body.get("variables") or {})}
                else:
                    value = owner.stream(self.path.split("/")[-2], body)
            if trouble != "drop":  # else: it arrived, but the answer is lost
                self.answer(200, value)

        def do_PUT(self):
            data = self.body()
            if self.troubled() in (500, 503, 429):
                return
            _, _, run_id, name = self.path.split("/", 3)
            owner.runs[run_id]["files"][name] = data
            self.answer(200, {})

        def do_GET(self):
            self.answer(200, {})

    return Handler
