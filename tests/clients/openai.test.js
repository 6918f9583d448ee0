import assert from "node:assert/strict";
import { createReadStream } from "node:fs";
import { test } from "node:test";

import OpenAI, { toFile } from "openai";

import { SERVICE_URL, SPEECH_FILE, SPEECH_TEXT, speech } from "./service.js";

const client = new OpenAI({ baseURL: SERVICE_URL, apiKey: "none", maxRetries: 0 });
const model = "sottovoce";
const transcribe = (fields) =>
  client.audio.transcriptions.create({ file: createReadStream(SPEECH_FILE), model, ...fields });

test("json", async () => {
  const answer = await transcribe();
  assert.equal(answer.text, SPEECH_TEXT);
  assert.equal(answer.usage.type, "duration");
});

test("a file from memory, with log-probabilities", async () => {
  const file = await toFile(speech, "speech.wav", { type: "audio/wav" });
  const answer = await client.audio.transcriptions.create({ file, model, include: ["logprobs"] });
  assert.ok(answer.logprobs.every((token) => token.logprob <= 0));
  assert.equal(answer.languages[0].code, "en");
});

test("text and subtitles", async () => {
  assert.equal((await transcribe({ response_format: "text" })).trim(), SPEECH_TEXT);
  assert.match(await transcribe({ response_format: "srt" }), /^1\n00:00:0\d,\d{3} --> /);
  assert.match(await transcribe({ response_format: "vtt" }), /^WEBVTT\n\n/);
});

test("words and segments", async () => {
  const answer = await transcribe({
    response_format: "verbose_json",
    timestamp_granularities: ["word", "segment"],
    chunking_strategy: { type: "server_vad", threshold: 0.4 },
  });
  assert.equal(answer.language, "english");
  assert.ok(answer.duration > 5);
  assert.ok(answer.segments.length > 0);
  assert.ok(answer.words.every(({ start, end }) => start <= end && end <= answer.duration));
});

test("a stream, whose deltas are the text", async () => {
  const deltas = [];
  for await (const event of await transcribe({ stream: true, chunking_strategy: "auto" })) {
    if (event.type === "transcript.text.done") {
      assert.equal(deltas.join(""), event.text);
      assert.equal(event.usage.type, "tokens");
    } else {
      assert.equal(event.type, "transcript.text.delta");
      deltas.push(event.delta);
    }
  }
  assert.ok(deltas.length > 1);
});

test("a translation", async () => {
  const answer = await client.audio.translations.create({ file: createReadStream(SPEECH_FILE), model });
  assert.equal(typeof answer.text, "string");
});

test("models", async () => {
  const ids = (await client.models.list()).data.map(({ id }) => id);
  assert.ok(ids.includes(model));
  assert.equal((await client.models.retrieve(model)).object, "model");
});

test("a refusal is the client's own class, with code, field and request id", async () => {
  const refused = (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.equal(error.code, "invalid_value");
    assert.equal(error.param, "temperature");
    assert.ok(error.requestID);
    return true;
  };
  await assert.rejects(transcribe({ temperature: 2 }), refused);
  await assert.rejects(transcribe({ model: "gpt-9" }), OpenAI.NotFoundError);
});
