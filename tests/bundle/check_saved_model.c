/* Loads a SavedModel through TensorFlow's C API, as TF-Serving does, and runs one signature: no Python, no Keras.

   check_saved_model DIRECTORY OUTPUT FEEDS NAME FILE ... FETCH ...

   FEEDS is the number of pairs of a tensor's name, such as "serving_default_image_bytes:0", and a file with its value; every
   further name is fetched, and the values are written to OUTPUT one after the other. A value is: int64 type (TF_DataType), int64
   rank, int64 dimensions, and its elements: numbers as they are in memory, a string as int64 length and its bytes. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/c/c_api.h"
#include "tensorflow/c/tf_tstring.h"

enum { MOST = 32 };

static void fail(const char* what, const char* why) {
  fprintf(stderr, "%s: %s\n", what, why);
  exit(1);
}

static void check(const TF_Status* status, const char* what) {
  if (TF_GetCode(status) != TF_OK) fail(what, TF_Message(status));
}

static void get(void* target, size_t size, FILE* file, const char* path) {
  if (size && fread(target, 1, size, file) != size) fail(path, "ends too early");
}

static void put(const void* source, size_t size, FILE* file) {
  if (size && fwrite(source, 1, size, file) != size) fail("output", "cannot be written");
}

static TF_Output find(TF_Graph* graph, const char* tensor) {
  char name[512];
  const char* colon = strrchr(tensor, ':');
  if (!colon || (size_t)(colon - tensor) >= sizeof name) fail(tensor, "not a tensor name");
  memcpy(name, tensor, (size_t)(colon - tensor));
  name[colon - tensor] = 0;
  TF_Output output = {TF_GraphOperationByName(graph, name), atoi(colon + 1)};
  if (!output.oper) fail(tensor, "not in the graph");
  return output;
}

static TF_Tensor* read_tensor(const char* path) {
  FILE* file = fopen(path, "rb");
  if (!file) fail(path, "cannot be opened");
  int64_t type, rank, shape[8], count = 1;
  get(&type, sizeof type, file, path);
  get(&rank, sizeof rank, file, path);
  if (rank < 0 || rank > 8) fail(path, "has a strange rank");
  get(shape, sizeof *shape * (size_t)rank, file, path);
  for (int64_t i = 0; i < rank; ++i) count *= shape[i];
  const size_t size = type == TF_STRING ? sizeof(TF_TString) : TF_DataTypeSize((TF_DataType)type);
  TF_Tensor* tensor = TF_AllocateTensor((TF_DataType)type, shape, (int)rank, size * (size_t)count);
  if (type != TF_STRING) {
    get(TF_TensorData(tensor), size * (size_t)count, file, path);
  } else {
    TF_TString* strings = TF_TensorData(tensor);
    for (int64_t i = 0; i < count; ++i) {
      int64_t length;
      get(&length, sizeof length, file, path);
      char* data = malloc((size_t)length + 1);
      if (!data) fail(path, "is too large");
      get(data, (size_t)length, file, path);
      TF_StringInit(&strings[i]);
      TF_StringCopy(&strings[i], data, (size_t)length);
      free(data);
    }
  }
  fclose(file);
  return tensor;
}

static void write_tensor(const TF_Tensor* tensor, FILE* file) {
  const int64_t type = TF_TensorType(tensor), rank = TF_NumDims(tensor);
  put(&type, sizeof type, file);
  put(&rank, sizeof rank, file);
  for (int i = 0; i < rank; ++i) {
    const int64_t size = TF_Dim(tensor, i);
    put(&size, sizeof size, file);
  }
  if (type != TF_STRING) {
    put(TF_TensorData(tensor), TF_TensorByteSize(tensor), file);
    return;
  }
  const TF_TString* strings = TF_TensorData(tensor);
  for (int64_t i = 0; i < TF_TensorElementCount(tensor); ++i) {
    const int64_t length = (int64_t)TF_StringGetSize(&strings[i]);
    put(&length, sizeof length, file);
    put(TF_StringGetDataPointer(&strings[i]), (size_t)length, file);
  }
}

int main(int argc, char** argv) {
  if (argc < 4) fail(argv[0], "too few arguments");
  const int feeds = atoi(argv[3]), fetches = argc - 4 - 2 * feeds;
  if (feeds < 1 || feeds > MOST || fetches < 1 || fetches > MOST) fail(argv[0], "wrong number of arguments");
  TF_Status* status = TF_NewStatus();
  TF_Graph* graph = TF_NewGraph();
  TF_SessionOptions* options = TF_NewSessionOptions();
  const char* tags[] = {"serve"};
  TF_Session* session = TF_LoadSessionFromSavedModel(options, NULL, argv[1], tags, 1, graph, NULL, status);
  check(status, "load");

  TF_Output fed[MOST], fetched[MOST];
  TF_Tensor *inputs[MOST], *results[MOST] = {NULL};
  for (int i = 0; i < feeds; ++i) {
    fed[i] = find(graph, argv[4 + 2 * i]);
    inputs[i] = read_tensor(argv[5 + 2 * i]);
  }
  for (int i = 0; i < fetches; ++i) fetched[i] = find(graph, argv[4 + 2 * feeds + i]);
  TF_SessionRun(session, NULL, fed, inputs, feeds, fetched, results, fetches, NULL, 0, NULL, status);
  check(status, "run");

  FILE* output = fopen(argv[2], "wb");
  if (!output) fail(argv[2], "cannot be written");
  for (int i = 0; i < fetches; ++i) write_tensor(results[i], output);
  if (fclose(output)) fail(argv[2], "cannot be written");

  for (int i = 0; i < feeds; ++i) TF_DeleteTensor(inputs[i]);
  for (int i = 0; i < fetches; ++i) TF_DeleteTensor(results[i]);
  TF_CloseSession(session, status);
  TF_DeleteSession(session, status);
  TF_DeleteSessionOptions(options);
  TF_DeleteGraph(graph);
  TF_DeleteStatus(status);
  return 0;
}
