/* Loads a SavedModel through TensorFlow's C API, as TF-Serving does, and runs one signature: no Python, no Keras.

   check_saved_model DIRECTORY INPUT EMBEDDING VALID OUTPUT bytes FILE...
   check_saved_model DIRECTORY INPUT EMBEDDING VALID OUTPUT images HEIGHT WIDTH CHANNELS FILE

   INPUT, EMBEDDING and VALID are tensor names such as "serving_default_image_bytes:0". `bytes` sends each file as one string;
   `images` sends one file of raw uint8 pixels. OUTPUT receives int64 rows, int64 dimension, float32 embeddings, uint8 valid. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/c/c_api.h"
#include "tensorflow/c/tf_tstring.h"

static void fail(const char* what, const char* why) {
  fprintf(stderr, "%s: %s\n", what, why);
  exit(1);
}

static void check(const TF_Status* status, const char* what) {
  if (TF_GetCode(status) != TF_OK) fail(what, TF_Message(status));
}

static char* read_file(const char* path, size_t* size) {
  FILE* file = fopen(path, "rb");
  if (!file) fail(path, "cannot be opened");
  fseek(file, 0, SEEK_END);
  *size = (size_t)ftell(file);
  rewind(file);
  char* data = malloc(*size + 1);
  if (!data || fread(data, 1, *size, file) != *size) fail(path, "cannot be read");
  fclose(file);
  return data;
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

static TF_Tensor* tensor_of_files(int count, char** paths) {
  const int64_t shape[1] = {count};
  TF_Tensor* tensor = TF_AllocateTensor(TF_STRING, shape, 1, sizeof(TF_TString) * (size_t)count);
  TF_TString* strings = TF_TensorData(tensor);
  for (int i = 0; i < count; ++i) {
    size_t size;
    char* data = read_file(paths[i], &size);
    TF_StringInit(&strings[i]);
    TF_StringCopy(&strings[i], data, size);
    free(data);
  }
  return tensor;
}

static TF_Tensor* tensor_of_pixels(char** arguments) {
  size_t size;
  char* data = read_file(arguments[3], &size);
  int64_t shape[4] = {0, atoll(arguments[0]), atoll(arguments[1]), atoll(arguments[2])};
  const size_t image = (size_t)(shape[1] * shape[2] * shape[3]);
  if (image == 0 || size % image) fail(arguments[3], "not a whole number of images");
  shape[0] = (int64_t)(size / image);
  TF_Tensor* tensor = TF_AllocateTensor(TF_UINT8, shape, 4, size);
  memcpy(TF_TensorData(tensor), data, size);
  free(data);
  return tensor;
}

int main(int argc, char** argv) {
  if (argc < 8) fail(argv[0], "too few arguments");
  TF_Status* status = TF_NewStatus();
  TF_Graph* graph = TF_NewGraph();
  TF_SessionOptions* options = TF_NewSessionOptions();
  const char* tags[] = {"serve"};
  TF_Session* session = TF_LoadSessionFromSavedModel(options, NULL, argv[1], tags, 1, graph, NULL, status);
  check(status, "load");

  TF_Tensor* input = strcmp(argv[6], "bytes") == 0 ? tensor_of_files(argc - 7, argv + 7) : tensor_of_pixels(argv + 7);
  const TF_Output fed = find(graph, argv[2]);
  const TF_Output fetched[2] = {find(graph, argv[3]), find(graph, argv[4])};
  TF_Tensor* results[2] = {NULL, NULL};
  TF_SessionRun(session, NULL, &fed, &input, 1, fetched, results, 2, NULL, 0, NULL, status);
  check(status, "run");
  if (TF_TensorType(results[0]) != TF_FLOAT || TF_NumDims(results[0]) != 2) fail(argv[3], "not float32 [N, D]");
  if (TF_TensorType(results[1]) != TF_BOOL || TF_NumDims(results[1]) != 1) fail(argv[4], "not bool [N]");

  const int64_t shape[2] = {TF_Dim(results[0], 0), TF_Dim(results[0], 1)};
  FILE* output = fopen(argv[5], "wb");
  if (!output) fail(argv[5], "cannot be written");
  fwrite(shape, sizeof shape, 1, output);
  for (int i = 0; i < 2; ++i) fwrite(TF_TensorData(results[i]), 1, TF_TensorByteSize(results[i]), output);
  if (fclose(output)) fail(argv[5], "cannot be written");

  TF_DeleteTensor(input);
  TF_DeleteTensor(results[0]);
  TF_DeleteTensor(results[1]);
  TF_CloseSession(session, status);
  TF_DeleteSession(session, status);
  TF_DeleteSessionOptions(options);
  TF_DeleteGraph(graph);
  TF_DeleteStatus(status);
  return 0;
}
