import assert from "node:assert/strict";
import { test } from "node:test";

import { createOpenAI } from "@ai-sdk/openai";
import { experimental_transcribe as transcribe } from "ai";

import { SERVICE_URL, SPEECH_TEXT, TIMED_TEXT, speech } from "./service.js";

const provider = createOpenAI({ baseURL: SERVICE_URL, apiKey: "none" });
const ask = (model, options) =>
  transcribe({
    model: provider.transcription(model),
    audio: speech,
    maxRetries: 0,
    ...(options && { providerOptions: { openai: options } }),
  });

test("the text and its length, without options", async () => {
  const answer = await ask("whisper-1");
  assert.equal(answer.text, SPEECH_TEXT);
  assert.ok(answer.durationInSeconds > 5);
});

test("with options: the text, its language, its length and its segments", async () => {
  const answer = await ask("whisper-1", { temperature: 0 });
  assert.equal(answer.text, TIMED_TEXT);
  assert.equal(answer.language, "en");
  assert.ok(answer.durationInSeconds > 5);
  assert.ok(answer.segments.length > 0);
  assert.ok(answer.segments.every(({ startSecond, endSecond }) => startSecond <= endSecond));
});

test("words instead of segments", async () => {
  const answer = await ask("whisper-1", { timestampGranularities: ["word"], language: "en" });
  assert.equal(answer.segments.map(({ text }) => text).join(" "), answer.text);
});

test("its default granularity beside json, which it asks of this model", async () => {
  const answer = await ask("gpt-4o-transcribe", { temperature: 0 });
  assert.equal(answer.text, SPEECH_TEXT);
});

test("a refusal carries the service's sentence", async () => {
  await assert.rejects(ask("whisper-1", { language: "klingon" }), /language 'klingon' is unknown to this model/);
});
