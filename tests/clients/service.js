// The running service and the recording that it is asked about, as tests/integration/serving/test_clients.py sets them.
import { readFileSync } from "node:fs";

export const { SERVICE_URL, SPEECH_FILE, SPEECH_TEXT, TIMED_TEXT } = process.env;
if (!SERVICE_URL || !SPEECH_FILE || !SPEECH_TEXT || !TIMED_TEXT) {
  throw new Error("run make test-clients: it starts the service that these tests call");
}

export const speech = readFileSync(SPEECH_FILE);
