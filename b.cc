#include "trainer/checkpoint/flat_copy.h"
#include <ATen/ops/full.h>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <algorithm>
#include <vector>
using namespace lockstep::trainer;
double now(){return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();}
int main(){
  at::Tensor a=at::full({11700000},1.5,at::kFloat), b=at::full({11700000},2.5,at::kFloat);
  FlatCopy c; c.Prepare({a,b});
  std::vector<char> warm(2*a.nbytes(),1);
  std::vector<double> t,m;
  for(int i=0;i<15;i++){ double s=now(); c.Take({a,b}); t.push_back(now()-s); s=now(); memcpy(warm.data(),a.const_data_ptr(),a.nbytes()); memcpy(warm.data()+a.nbytes(),b.const_data_ptr(),b.nbytes()); m.push_back(now()-s);
   if (getenv("DIRTY")) {for(size_t k=0;k<a.nbytes()/4;k++) ((float*)a.data_ptr())[k]+=1; for(size_t k=0;k<a.nbytes()/4;k++) ((float*)b.data_ptr())[k]+=1;} }
  std::sort(t.begin(),t.end());std::sort(m.begin(),m.end());
  printf("take %.2f (%.2f..%.2f) memcpy %.2f (%.2f..%.2f)\n",1e3*t[7],1e3*t[0],1e3*t[14],1e3*m[7],1e3*m[0],1e3*m[14]);
}
