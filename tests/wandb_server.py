"""A small W&B server on 127.0.0.1 that keeps what runs send, and can fall silent or go away."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "f" * 40


class Server:
    """Knows runs, their history and their artifacts, as far as wandb asks for them.

    Attributes:
        url: For `WANDB_BASE_URL`.
        runs: By id: `history` (line number to row), `sent` (how many rows came), `config`, `summary`, `exit`, ...
        artifacts: Name, digest and metadata of each version, in order.
        aliases: The version that an artifact's name and an alias lead to, as its place in `artifacts`.
        used: Run and artifact of each edge, in order; artifacts by their places in `artifacts`.
        alerts: Title and text of each, in order.
        files: What was uploaded, by address.
        silent: Whether requests stay without an answer.
    """

    def __init__(self):
        self.runs, self.artifacts, self.files, self.silent = {}, [], {}, False
        self.aliases, self.used, self.alerts = {}, [], []
        self.lock, self.closed, self.connections = threading.RLock(), threading.Event(), set()
        self.http = Quiet(("127.0.0.1", 0), type("Bound", (Handler,), {"owner": self}))
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def close(self):
        """Die: nothing listens any more, and open connections end."""
        if not self.closed.is_set():
            self.closed.set()
            self.http.shutdown()
            self.http.server_close()
            self.thread.join()

    def rows(self, run):
        return [json.loads(line) for _, line in sorted(self.runs[run]["history"].items())]

    def answer(self, operation, given):
        with self.lock:
            return getattr(self, f"_{operation}", lambda _: None)(given)

    def stream(self, name, told):
        with self.lock:
            run = self.runs[name]
            for file, part in (told.get("files") or {}).items():
                if file == "wandb-history.jsonl":
                    run["history"].update(enumerate(part["content"], part["offset"]))
                    run["sent"] += len(part["content"])
                elif file == "wandb-summary.json":
                    run["summary"] = json.loads(part["content"][-1])
            if told.get("complete"):
                run["exit"] = told["exitcode"]

    def _Viewer(self, given):
        return {"viewer": {"id": "v", "entity": "tester", "username": "tester", "flags": "{}", "teams": None}}

    def _RunResumeStatus(self, given):
        run = self.runs.get(given["name"])
        bucket = None
        if run is not None:
            lines = [line for _, line in sorted(run["history"].items())]
            counts = {"historyLineCount": len(lines), "eventsLineCount": 0, "logLineCount": 0}
            texts = {"historyTail": json.dumps(lines[-1:]), "eventsTail": "[]", "tags": [], "wandbConfig": '{"t": 1}'}
            told = {"summaryMetrics": json.dumps(run["summary"]), "config": json.dumps(run["config"])}
            bucket = {"name": run["name"], **counts, **texts, **told}
        return {"model": {"id": "p", "name": "p", "entity": {"id": "e", "name": "tester"}, "bucket": bucket}}

    def _UpsertBucket(self, given):
        name = (given.get("name") or given["id"]).removeprefix("id-")
        new = {"name": name, "history": {}, "sent": 0, "config": {}, "summary": {}, "exit": None}
        inserted = name not in self.runs
        run = self.runs.setdefault(name, new)
        run["asked"] = {**run.get("asked", {}), **{key: value for key, value in given.items() if value is not None}}
        if given.get("config"):
            run["config"] = json.loads(given["config"])
        project = {"id": "p", "name": run["asked"]["project"], "entity": {"id": "e", "name": "tester"}}
        bucket = {"id": f"id-{name}", "name": name, "displayName": run["asked"].get("displayName", name)}
        return {"upsertBucket": {"bucket": {**bucket, "project": project}, "inserted": inserted}}

    def _ArtifactType(self, given):
        return {"project": {"artifact": None}}

    def _CreateArtifact(self, given):
        # Older clients send what is inside `input` by itself.
        told = given.get("input", given)
        name = told.get("artifactCollectionName") or told["artifactCollectionNames"][0]
        version = {"name": name, "digest": told["digest"], "metadata": told.get("metadata")}
        known = [index for index, one in enumerate(self.artifacts) if one == version]
        if not known:
            self.artifacts.append(version)
        number = known[0] if known else len(self.artifacts) - 1
        for one in told.get("aliases") or []:
            self.aliases[one["artifactCollectionName"], one["alias"]] = number
        made = {"id": f"artifact-{number}", "state": "COMMITTED" if known else "PENDING"}
        return {"createArtifact": {"artifact": {**made, "artifactSequence": {"latestArtifact": None}}}}

    def _CreateArtifactManifest(self, given):
        file = {"id": "f", "name": given["name"], "displayName": given["name"], **self._place("manifest")}
        return {"createArtifactManifest": {"artifactManifest": {"id": "m", "file": file}}}

    def _CreateArtifactFiles(self, given):
        edges = []
        for spec in given.get("input", given)["artifactFiles"]:
            node = {"id": spec["name"], "name": spec["name"], "displayName": spec["name"], "storagePath": None}
            node |= {"uploadMultipartUrls": None, "artifact": {"id": spec["artifactID"]}, **self._place(spec["name"])}
            edges.append({"node": node})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def _CommitArtifact(self, given):
        return {"commitArtifact": {"artifact": {"id": given["artifactID"], "digest": "d"}}}

    def _ArtifactMembershipByName(self, given):
        collection, _, alias = given["name"].partition(":")
        number = self.aliases.get((collection, alias))
        if number is None:
            return {"project": {"artifactCollectionMembership": None}}
        version = self.artifacts[number]
        project = {"id": "p", "internalId": "p", "name": given["project"], "entity": {"name": given["entity"]}}
        sequence = {"__typename": "ArtifactSequence", "name": collection, "project": project}
        counted = {"versionIndex": number, "createdAt": "2026-01-01T00:00:00Z"}
        artifact = {"__typename": "Artifact", "id": f"artifact-{number}", "artifactSequence": sequence, **counted}
        artifact |= {"artifactType": {"name": "model"}, "description": None, "metadata": None, "tags": []}
        artifact |= {"ttlDurationSeconds": -2, "ttlIsInherited": True, "historyStep": None, "state": "COMMITTED"}
        artifact |= {"size": 1, "digest": version["digest"], "commitHash": "c", "fileCount": 1, "updatedAt": None}
        artifact["aliases"] = []
        member = {"__typename": "ArtifactCollectionMembership", "id": "m", **counted, "aliases": []}
        member |= {"artifactCollection": sequence, "artifact": artifact}
        return {"project": {"artifactCollectionMembership": member}}

    def _NotifyScriptableRunAlert(self, given):
        self.alerts.append((given["title"], given["text"]))
        return {"notifyScriptableRunAlert": {"success": True}}

    def _UseArtifact(self, given):
        self.used.append((given["runName"], int(given["artifactID"].removeprefix("artifact-"))))
        return {"useArtifact": {"artifact": {"id": "a", "digest": "d", "state": "COMMITTED"}}}

    def _CreateRunFiles(self, given):
        files = [{"name": name, "uploadUrl": self._place(name)["uploadUrl"]} for name in given["files"]]
        return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}

    def _place(self, name):
        return {"uploadUrl": f"{self.url}/put/{name}", "uploadHeaders": []}


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, address):
        """Clients that are killed leave broken connections behind."""


class Handler(BaseHTTPRequestHandler):
    owner = None
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        stream = re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path)
        if self.path == "/graphql":
            told = json.loads(body)
            named = re.search(r"(?:query|mutation)\s+(\w+)|\{\s*(\w+)", told["query"])
            operation = named[1] or named[2].capitalize()
            self.wait_or_go()
            found = self.owner.answer(operation, told.get("variables") or {})
            self.say({"data": found} if found else {"errors": [{"message": f"{operation} is not known here"}]})
        elif stream:
            self.wait_or_go()
            self.owner.stream(stream[1], json.loads(body))
            self.say({"exitcode": None, "limits": {}})
        else:
            self.say({}, 404)

    def do_PUT(self):
        self.owner.files[self.path] = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.say({})

    def wait_or_go(self):
        if self.owner.silent:
            self.owner.closed.wait()
        if self.owner.closed.is_set():
            raise ConnectionResetError

    def say(self, data, status=200):
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
